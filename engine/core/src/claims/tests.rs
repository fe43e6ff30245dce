use proptest::prelude::*;

use super::*;

fn grant(text: &str) -> Grant {
    text.parse().unwrap()
}

fn pattern(text: &str) -> ResourcePattern {
    text.parse().unwrap()
}

#[test]
fn grants_are_read_as_the_grammar_says() {
    let cases = [
        ("read on journal/42", Ok("read on journal/42")),
        ("read,comment on journal/42", Ok("comment,read on journal/42")),
        ("read, read ,comment on journal/*/x/**", Ok("comment,read on journal/*/x/**")),
        ("*,read on **", Ok("* on **")),
        ("journal:read.all-x_1 on ünï/cödé", Ok("journal:read.all-x_1 on ünï/cödé")),
        ("read journal/42", Err(GrantError::Shape)),
        ("Read on journal", Err(GrantError::Action)),
        (" on journal", Err(GrantError::Action)),
        ("read,,write on journal", Err(GrantError::Action)),
        ("read on /journal", Err(ResourceError::EmptySegment.into())),
        ("read on journal/", Err(ResourceError::EmptySegment.into())),
        ("read on a//b", Err(ResourceError::EmptySegment.into())),
        ("read on a/../b", Err(ResourceError::DotSegment.into())),
        ("read on a/**/b", Err(ResourceError::Wildcard.into())),
        ("read on a/x*", Err(ResourceError::Wildcard.into())),
        ("read on a b", Err(ResourceError::Character.into())),
        ("read on ", Err(ResourceError::Length.into())),
    ];
    for (text, expected) in cases {
        let read = text.parse::<Grant>().map(|grant| grant.to_string());
        assert_eq!(read, expected.map(str::to_owned), "{text}");
    }
}

#[test]
fn bounds_are_kept() {
    let deep = |segments: usize| vec!["a"; segments].join("/");
    assert!(deep(SEGMENTS_MAX).parse::<ResourcePattern>().is_ok());
    assert_eq!(deep(SEGMENTS_MAX + 1).parse::<ResourcePattern>(), Err(ResourceError::Segments));
    assert_eq!("a".repeat(RESOURCE_BYTES_MAX + 1).parse::<ResourcePattern>(), Err(ResourceError::Length));
    assert!(ResourceQuery::new("read", &deep(SEGMENTS_MAX)).is_ok());
    assert!(ResourceQuery::new("read", &deep(SEGMENTS_MAX + 1)).is_err());
    let many = (0..=ACTIONS_MAX).map(|at| format!("a{at}")).collect::<Vec<_>>().join(",");
    assert_eq!(format!("{many} on x").parse::<Grant>(), Err(GrantError::TooManyActions));
    let big = (0..4).map(|at| (format!("k{at}").parse().unwrap(), "v".repeat(ATTRIBUTE_BYTES_MAX))).collect();
    assert!(matches!(Claims::new([], [], [], big), Err(ClaimsError::TooLarge { .. })));
    assert_eq!(Name::new(&"n".repeat(256)), Err(NameError::Length));
    assert_eq!(Name::new("a\nb"), Err(NameError::Control));
}

#[test]
fn access_is_denied_unless_one_grant_covers_action_and_resource_together() {
    let claims =
        Claims::new([], [], [grant("read on journal/42"), grant("write on notes/**")], BTreeMap::new());
    let compiled = claims.unwrap().compile();
    let allowed = |action, resource| compiled.allows(&ResourceQuery::new(action, resource).unwrap());
    assert!(allowed("read", "journal/42"));
    assert!(allowed("write", "notes"));
    assert!(allowed("write", "notes/a/b"));
    assert!(!allowed("write", "journal/42"));
    assert!(!allowed("read", "journal/43"));
    assert!(!allowed("read", "journal/42/x"));
    assert!(!allowed("read", "journal"));
    let nothing = Claims::default().compile();
    assert!(!nothing.allows(&ResourceQuery::new("read", "journal").unwrap()));
}

#[test]
fn a_query_names_one_concrete_thing() {
    assert_eq!(ResourceQuery::new("read", "a/*").unwrap_err(), ResourceError::Wildcard);
    assert_eq!(ResourceQuery::new("*", "a").unwrap_err(), ResourceError::Action);
    assert_eq!(ResourceQuery::new("", "a").unwrap_err(), ResourceError::Action);
}

#[test]
fn a_token_for_named_audiences_is_for_those_alone() {
    let names = ["api", "web"].map(|name| name.parse::<Name>().unwrap());
    let named = Claims::new(names, [], [], BTreeMap::new()).unwrap().compile();
    assert!(named.audience_ok(Some("api")));
    assert!(!named.audience_ok(Some("other")));
    assert!(!named.audience_ok(None));
    assert!(Claims::default().compile().audience_ok(Some("anything")));
    assert!(Claims::default().compile().audience_ok(None));
}

#[test]
fn a_token_has_to_have_every_scope_that_is_asked_for() {
    let scopes = ["mail", "openid", "profile"].map(str::to_owned);
    let compiled = Claims::new([], scopes, [], BTreeMap::new()).unwrap().compile();
    let has = |scopes| compiled.has_scopes(&ScopesQuery::new(scopes).unwrap());
    for asked in ["mail", "profile mail", "openid mail profile", "mail mail"] {
        assert!(has(asked), "{asked}");
        assert!(!Claims::default().compile().has_scopes(&ScopesQuery::new(asked).unwrap()), "{asked}");
    }
    for asked in ["mai", "mails", "MAIL", "mail calendar", "calendar"] {
        assert!(!has(asked), "{asked}");
    }
    for none in ["", " ", "mail ", " mail", "mail  openid", "a\"b", "a\\b", "é", "a\tb", &"x".repeat(256)] {
        assert_eq!(ScopesQuery::new(none), Err(ScopesError), "{none}");
    }
    let many = |count| vec!["s"; count].join(" ");
    assert!(ScopesQuery::new(&many(SCOPES_MAX)).is_ok());
    assert_eq!(ScopesQuery::new(&many(SCOPES_MAX + 1)), Err(ScopesError));
}

#[test]
fn the_canonical_bytes_are_pinned() {
    let attributes = BTreeMap::from([("k".parse().unwrap(), "v".to_owned())]);
    let claims =
        Claims::new(["api".parse().unwrap()], ["openid".to_owned()], [grant("read on a/*")], attributes)
            .unwrap();
    let expected =
        b"\x01\x01\0\x03\0api\x01\0\x06\0openid\x01\0\x01\0\x04\0read\x03\0a/*\x01\0\x01\0k\x01\0v";
    assert_eq!(claims.bytes(), expected);
    assert_eq!(Claims::decode(expected), Ok(claims));
    assert_eq!(Claims::default().bytes(), b"\x01\0\0\0\0\0\0\0\0");
}

#[test]
fn bytes_that_are_not_canonical_are_refused() {
    assert_eq!(Claims::decode(b""), Err(ClaimsError::Malformed));
    assert_eq!(Claims::decode(b"\x02\0\0\0\0\0\0\0\0"), Err(ClaimsError::Malformed));
    assert_eq!(Claims::decode(b"\x01\0\0\0\0\0\0\0\0x"), Err(ClaimsError::NotCanonical));
    assert_eq!(Claims::decode(b"\x01\x02\0\x01\0b\x01\0a\0\0\0\0\0\0"), Err(ClaimsError::NotCanonical));
    assert_eq!(Claims::decode(b"\x01\xff\xff\0\0\0\0\0\0"), Err(ClaimsError::Name(NameError::Length)));
}

/// The oracle for matching: the grammar's sentences, one recursion each.
fn oracle(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        (["**"], _) | ([], []) => true,
        ([head, pattern @ ..], [segment, path @ ..]) => {
            (*head == "*" || head == segment) && oracle(pattern, path)
        }
        _ => false,
    }
}

/// Every path of up to four segments over an alphabet with one letter that no pattern uses.
fn paths() -> Vec<String> {
    let mut paths: Vec<String> = ["a", "b", "z"].map(str::to_owned).to_vec();
    let mut layer = paths.clone();
    for _ in 0..3 {
        layer = layer.iter().flat_map(|path| ["a", "b", "z"].map(|next| format!("{path}/{next}"))).collect();
        paths.extend(layer.clone());
    }
    paths
}

fn any_pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![Just("a"), Just("b"), Just("*")];
    (prop::collection::vec(segment, 0..3), any::<bool>()).prop_filter_map("empty", |(mut segments, open)| {
        segments.extend(open.then_some("**"));
        (!segments.is_empty()).then(|| segments.join("/"))
    })
}

fn split(text: &str) -> Vec<&str> {
    text.split('/').collect()
}

proptest! {
    #[test]
    fn a_pattern_matches_what_the_oracle_says(text in any_pattern()) {
        let compiled = pattern(&text);
        for path in paths() {
            let query = ResourceQuery::new("x", &path).unwrap();
            prop_assert_eq!(compiled.matches(&query), oracle(&split(&text), &split(&path)), "{} ~ {}", text, path);
        }
    }

    #[test]
    fn containment_and_overlap_are_exact(one in any_pattern(), other in any_pattern()) {
        let (mine, theirs) = (pattern(&one), pattern(&other));
        let matched = |of: &str| paths().into_iter().filter(|path| oracle(&split(of), &split(path))).collect::<BTreeSet<_>>();
        let (one_set, other_set) = (matched(&one), matched(&other));
        prop_assert_eq!(mine.contains(&theirs), other_set.is_subset(&one_set), "{} contains {}", one, other);
        prop_assert_eq!(mine.overlaps(&theirs), !other_set.is_disjoint(&one_set), "{} overlaps {}", one, other);
    }

    #[test]
    fn many_grants_allow_what_one_of_them_does(grants in prop::collection::vec(("x|y|\\*", any_pattern()), 0..12)) {
        let of_each = |(action, resource): &(String, String)| grant(&format!("{action} on {resource}"));
        let claims = Claims::new([], [], grants.iter().map(of_each), BTreeMap::new()).unwrap();
        let compiled = claims.compile();
        prop_assert_eq!(compiled.grants().len(), claims.grants().len());
        for (path, action) in paths().iter().flat_map(|path| ["x", "y", "z"].map(|action| (path, action))) {
            let query = ResourceQuery::new(action, path).unwrap();
            let one_does = grants.iter().any(|(granted, pattern)| {
                (granted == "*" || granted == action) && oracle(&split(pattern), &split(path))
            });
            prop_assert_eq!(compiled.allows(&query), one_does, "{} on {}: {:?}", action, path, &grants);
        }
    }

    #[test]
    fn patterns_are_read_back_from_their_text(text in any_pattern()) {
        prop_assert_eq!(pattern(&text).to_string(), text);
    }

    #[test]
    fn claims_come_back_from_their_bytes(
        audience in prop::collection::vec("[a-zü]{1,8}", 0..4),
        scopes in prop::collection::vec("[!#-\\[\\]-~]{1,8}", 0..4),
        grants in prop::collection::vec(("[a-z]{1,4}(,[a-z]{1,4}){0,2}", any_pattern()), 0..4),
        attributes in prop::collection::btree_map("[a-z]{1,4}", ".{0,10}", 0..4),
    ) {
        let claims = Claims::new(
            audience.iter().map(|name| name.parse().unwrap()),
            scopes,
            grants.iter().map(|(actions, resource)| grant(&format!("{actions} on {resource}"))),
            attributes.into_iter().map(|(key, value)| (key.parse().unwrap(), value)).collect(),
        ).unwrap();
        prop_assert_eq!(Claims::decode(claims.bytes()), Ok(claims));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), versioned in any::<bool>()) {
        let bytes = if versioned { [&[1][..], &bytes].concat() } else { bytes };
        let _ = Claims::decode(&bytes);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = text.parse::<Grant>();
            let _ = ResourceQuery::new("read", text);
        }
    }
}
