//! The grammar of grants, patterns and paths, and the relation between patterns.
//!
//! The oracle reads patterns as lists of words and matches with one recursion; it knows docs/GRANTS.md only.

use jeton_core::claims::{
    Claims, Grant, RESOURCE_BYTES_MAX, ResourcePattern, ResourceQuery, SEGMENTS_MAX, ScopesQuery,
};

use crate::allocation::bounded;

/// Patterns and paths of one input that are compared with one another.
const LINES_MAX: usize = 6;

/// Reads the bytes as claims, and each line of them as a grant, a pattern and a path.
pub fn run(data: &[u8]) {
    check_claims(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.lines().take(LINES_MAX).collect();
    lines.iter().for_each(|line| check_grant(line));
    let patterns: Vec<(ResourcePattern, &str)> =
        lines.iter().filter_map(|line| check_pattern(line)).collect();
    let paths: Vec<ResourceQuery<'_>> = lines.iter().filter_map(|line| check_path(line)).collect();
    check_relations(&patterns, &paths);
}

/// Claims have one spelling, and a decoder that a claim of a large count costs nothing.
fn check_claims(data: &[u8]) {
    if let Ok(claims) = bounded(4 * 1024 + 64 * data.len(), || Claims::decode(data)) {
        assert_eq!(claims.bytes(), data, "claims have one spelling");
        let compiled = claims.compile();
        for name in claims.audience() {
            assert!(compiled.audience_ok(Some(name.as_str())), "a token is for whom it is meant");
        }
        assert_eq!(compiled.audience_ok(None), claims.audience().is_empty());
        let scopes = claims.scopes().join(" ");
        let query = ScopesQuery::new(&scopes);
        assert_eq!(query.is_ok(), !scopes.is_empty(), "scopes of a token can be asked for");
        assert!(query.is_ok_and(|all| compiled.has_scopes(&all)) || scopes.is_empty(), "it has what it has");
        for grant in claims.grants() {
            check_compiled(grant, &claims);
        }
    }
}

/// What one grant covers, the whole set allows.
fn check_compiled(grant: &Grant, claims: &Claims) {
    let resource = grant.resource().to_string().replace("**", "x").replace('*', "x");
    for action in grant.actions() {
        let action = if action == "*" { "any" } else { action };
        let query =
            ResourceQuery::new(action, &resource).expect("a pattern with its stars filled in is a path");
        assert!(grant.covers(&query), "{grant} covers {action} on {resource}");
        assert!(claims.compile().allows(&query), "one grant is enough");
    }
}

fn check_grant(line: &str) {
    if let Ok(grant) = line.parse::<Grant>() {
        let printed = grant.to_string();
        assert_eq!(printed.parse(), Ok(grant.clone()), "a grant is read back from its text");
        let again = Grant::new(grant.actions(), grant.resource().clone());
        assert_eq!(again, Ok(grant.clone()), "and is the same from its parts");
        let actions: Vec<&str> = grant.actions().collect();
        assert!(actions.is_sorted_by(|one, next| one < next), "actions are sorted, none twice: {printed}");
        assert!(actions == ["*"] || !actions.contains(&"*"), "* stands alone: {printed}");
    }
}

/// Whether a path or pattern may be written so at all.
fn is_path(text: &str) -> bool {
    let segments: Vec<&str> = text.split('/').collect();
    let is_segment = |segment: &&str| {
        !segment.is_empty()
            && !matches!(*segment, "." | "..")
            && !segment.chars().any(|character| character.is_whitespace() || character.is_control())
    };
    (1..=RESOURCE_BYTES_MAX).contains(&text.len())
        && segments.len() <= SEGMENTS_MAX
        && segments.iter().all(is_segment)
}

fn check_pattern(line: &str) -> Option<(ResourcePattern, &str)> {
    let stars_stand_well = |text: &str| {
        let segments: Vec<&str> = text.split('/').collect();
        segments.iter().enumerate().all(|(at, segment)| {
            !segment.contains('*') || *segment == "*" || (*segment == "**" && at + 1 == segments.len())
        })
    };
    let pattern = line.parse::<ResourcePattern>();
    assert_eq!(pattern.is_ok(), is_path(line) && stars_stand_well(line), "{line:?}");
    let pattern = pattern.ok()?;
    assert_eq!(pattern.to_string(), line, "a pattern has one spelling");
    Some((pattern, line))
}

fn check_path(line: &str) -> Option<ResourceQuery<'_>> {
    let query = ResourceQuery::new("read", line);
    assert_eq!(query.is_ok(), is_path(line) && !line.contains('*'), "{line:?}");
    let is_action = (1..=64).contains(&line.len())
        && line.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_' | '.' | ':' | '-'));
    assert_eq!(ResourceQuery::new(line, "a").is_ok(), is_action, "{line:?} as an action");
    query.ok()
}

fn check_relations(patterns: &[(ResourcePattern, &str)], paths: &[ResourceQuery<'_>]) {
    for (one, text) in patterns {
        assert!(one.contains(one) && one.overlaps(one), "{text} contains itself");
        for path in paths {
            assert_eq!(one.matches(path), matches(text, path.resource()), "{text} ~ {}", path.resource());
        }
        for (other, other_text) in patterns {
            assert_eq!(one.overlaps(other), other.overlaps(one), "{text} and {other_text}");
            check_pair((one, text), (other, other_text), paths);
            for (third, third_text) in patterns {
                let chain = one.contains(other) && other.contains(third);
                assert!(!chain || one.contains(third), "{text} > {other_text} > {third_text}");
            }
        }
    }
}

/// `contains` and `overlaps` against the paths that tell patterns apart: those of the input, and for each pattern the
/// shortest ones that it matches, with segments that no pattern names.
fn check_pair(
    (one, text): (&ResourcePattern, &str),
    (other, other_text): (&ResourcePattern, &str),
    paths: &[ResourceQuery<'_>],
) {
    let mut witnesses: Vec<String> = paths.iter().map(|path| path.resource().to_owned()).collect();
    witnesses.extend(witnesses_of(other_text));
    witnesses.extend(witnesses_of(text));
    witnesses.extend(meeting(text, other_text));
    let all_in = witnesses.iter().filter(|path| matches(other_text, path)).all(|path| matches(text, path));
    let some_in_both = witnesses.iter().any(|path| matches(text, path) && matches(other_text, path));
    // At the longest path a pattern may stand there is no room for the witness that would tell.
    let has_room = [text, other_text].iter().all(|text| text.split('/').count() + 2 < SEGMENTS_MAX);
    if one.contains(other) {
        assert!(all_in, "{text} does not contain {other_text}");
    } else if has_room {
        assert!(!all_in, "{text} contains {other_text}");
    }
    if some_in_both {
        assert!(one.overlaps(other), "{text} overlaps {other_text}");
    } else if has_room {
        assert!(!one.overlaps(other), "{text} does not overlap {other_text}");
    }
}

/// A segment that no pattern of an input can hold: patterns hold no whitespace, and the oracle does not mind it.
const NOBODYS: &str = " ";

/// Paths that a pattern matches, with each star filled in with what nobody else names.
fn witnesses_of(pattern: &str) -> Vec<String> {
    match pattern.strip_suffix("**") {
        None => vec![filled(pattern)],
        Some(stem) => {
            let stem = filled(stem.trim_end_matches('/'));
            let grown = |by: usize| {
                [vec![stem.as_str(); usize::from(!stem.is_empty())], vec![NOBODYS; by]].concat().join("/")
            };
            (usize::from(stem.is_empty())..4).map(grown).collect()
        }
    }
}

fn filled(pattern: &str) -> String {
    let segments = pattern.split('/').map(|segment| if segment == "*" { NOBODYS } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

/// A path that both patterns match if any does: the literals of either, as long as the longer one.
fn meeting(one: &str, other: &str) -> Option<String> {
    let (one, other): (Vec<&str>, Vec<&str>) = (one.split('/').collect(), other.split('/').collect());
    let is_literal = |segment: &&&str| !segment.contains('*');
    let length = [&one, &other].map(|pattern| pattern.len() - usize::from(pattern.last() == Some(&"**")));
    let length = length.into_iter().max()?.max(1);
    let at = |position: usize| {
        let of =
            |pattern: &[&str]| pattern.get(position).filter(is_literal).map(|literal| (*literal).to_owned());
        of(&one).or_else(|| of(&other)).unwrap_or_else(|| NOBODYS.to_owned())
    };
    Some((0..length).map(at).collect::<Vec<_>>().join("/"))
}

/// The sentences of the grammar, one recursion each.
fn matches(pattern: &str, path: &str) -> bool {
    fn walk(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            (["**"], _) | ([], []) => true,
            ([head, pattern @ ..], [segment, path @ ..]) => {
                (*head == "*" || head == segment) && walk(pattern, path)
            }
            _ => false,
        }
    }
    walk(&pattern.split('/').collect::<Vec<_>>(), &path.split('/').collect::<Vec<_>>())
}
