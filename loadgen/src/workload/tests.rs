//! Workload files: what they may say, and what is said of those that say something else.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn every_named_workload_is_sound_and_says_what_it_stands_for() {
    for (name, workload, _) in library::all() {
        assert!(!workload.about.is_empty(), "{name}");
        let text = toml::to_string(&workload).unwrap();
        assert_eq!(Workload::parse(&text).unwrap(), workload, "{name} comes back from its own text");
    }
    assert_eq!(library::named("default").unwrap(), Workload::default());
}

#[test]
fn nonsense_is_told_in_one_line_that_names_the_place() {
    let table = [
        ("conections = 3", "line 1: unknown field `conections`"),
        ("\n[mix]\nvalidat = 3", "line 3: unknown field `validat`"),
        ("connections = 0", "connections is 0: it must be 1 to 4096"),
        ("connections = \"many\"", "line 1: invalid type: string \"many\""),
        ("batch = 5000", "batch is 5000: it must be 1 to 1024"),
        ("mix = { validate = 50 }", "the mix adds up to 50 percent, not 100"),
        ("mix = { validate = -3, issue = 100 }", "the mix: a share is 0 to 100 percent"),
        ("validate = { live = 3 }", "what validates ask adds up to 3 percent, not 100"),
        ("schedule = \"open\"", "line 1: unknown variant `open`"),
        ("schedule = { fixed = 0 }", "a rate is 1 to 10000000 requests a second, not 0"),
        ("schedule = { steps = [] }", "a schedule has 1 to 1000 steps, not 0"),
        ("duration = \"3 h\"", "line 1: '3 h' is no duration: write 250us, 500ms, 10s or 2m"),
        ("duration = \"61m\"", "duration is 3660s: it must be 100ms to 3600s"),
        ("workers = 2\nconnections = 1", "2 workers have no use for 1 connection(s)"),
        ("think = \"1s\"", "only a closed loop thinks: in an open one the rate says when"),
        ("keys = { tokens = 3 }", "keys.tokens is 3: it must be 1000 to 50000000"),
        ("keys = { pick = { zipf = 0 } }", "keys.pick.zipf is 0: it must be 0.1 to 5"),
        ("keys = { pick = \"often\" }", "line 1: unknown variant `often`"),
        ("[[[", "line 1: "),
    ];
    for (text, expected) in table {
        let said = format!("{:#}", Workload::parse(text).unwrap_err());
        assert!(said.starts_with(expected), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let said = Workload::find("rush-hour").unwrap_err().to_string();
    assert!(said.starts_with("no workload is named rush-hour: there are default, gateway"), "{said}");
    let said = format!("{:#}", Workload::find("/nowhere/at-all.toml").unwrap_err());
    assert!(said.starts_with("the workload file /nowhere/at-all.toml: No such file"), "{said}");
}

#[test]
fn shares_are_read_from_flags() {
    assert_eq!("validate=97,issue=2,revoke=1".parse(), Ok(Mix::default()));
    assert_eq!("live=100".parse(), Ok(Asks { live: 100.0, ..Asks::none() }));
    for text in ["", "validate=50", "validate=x", "reads=100", "validate=99,issue=2"] {
        assert!(text.parse::<Mix>().is_err(), "{text}");
    }
}

#[test]
fn durations_have_units() {
    let table = [("10s", 10_000_000), ("10", 10_000_000), ("2m", 120_000_000), ("5ms", 5_000), ("7us", 7)];
    for (text, micros) in table {
        assert_eq!(text.parse(), Ok(Span(Duration::from_micros(micros))), "{text}");
    }
    for text in ["", "s", "1h", "-1s", "1.5s", "99999999999999999999s", "9999999999999999m"] {
        assert!(text.parse::<Span>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn a_duration_comes_back_from_its_text(micros in 0..10_000_000_000_u64) {
        let span = Span(Duration::from_micros(micros));
        prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _ = Workload::parse(&text);
    }
}
