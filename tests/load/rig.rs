//! Running `jeton-load` and looking at what it leaves.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// `jeton-load` in a folder of its own, so that the reports of one test are not those of another.
pub(crate) fn load(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(jeton_tests::jeton_load());
    command.args(args).current_dir(dir).env("JETON_DATA", dir).env_remove("JETON_CONNECT");
    command
}

/// What was said on standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap().trim().to_owned()
}

/// A short run of few tokens, with more flags.
pub(crate) fn short(dir: &Path, more: &[&str]) -> Output {
    let flags =
        ["run", "--json", "--tokens", "2000", "--duration", "1s", "--warm-up", "100ms", "--rate", "200"];
    load(dir, &[&flags[..], more].concat())
}

/// The summary that a run printed; that it went well is checked.
#[track_caller]
pub(crate) fn summary(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["wrong_replies"], &summary["errors"]), (&0.into(), &0.into()), "{summary}");
    assert!(summary["achieved_per_s"].as_f64().unwrap() > 0.0, "{summary}");
    summary
}

/// That it failed as said, in one line that holds these words.
#[track_caller]
pub(crate) fn assert_refused(output: &Output, words: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(words), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
