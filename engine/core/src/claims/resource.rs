//! Resources: `/`-paths, patterns over them, and the query that a check asks.

use std::fmt;
use std::str::FromStr;

/// The longest path or pattern, in bytes.
pub const RESOURCE_BYTES_MAX: usize = 1024;
/// The most segments of a path or pattern.
pub const SEGMENTS_MAX: usize = 32;

/// Why text is no resource, or no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// It is empty or too long.
    #[error("a resource has 1 to {RESOURCE_BYTES_MAX} bytes")]
    Length,
    /// It has too many segments.
    #[error("a resource has at most {SEGMENTS_MAX} segments")]
    Segments,
    /// A segment is empty: a slash leads, trails or is doubled.
    #[error("a resource has no leading, trailing or doubled slash")]
    EmptySegment,
    /// A segment is `.` or `..`: services resolve those differently, so none is taken.
    #[error("a resource has no segment . or ..")]
    DotSegment,
    /// A space or a control character.
    #[error("a resource holds no spaces or control characters")]
    Character,
    /// A `*` in a concrete path, or in the middle of a pattern's segment.
    #[error(
        "* stands alone for one segment of a pattern, ** for the rest at its end; a concrete path has neither"
    )]
    Wildcard,
    /// The action asked for is empty or too long.
    #[error("an action has 1 to 64 characters a-z 0-9 _ . : -")]
    Action,
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Any,
}

/// A pattern over paths: literal segments, `*` for any one, and `**` at the end for any number, none included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePattern {
    segments: Vec<Segment>,
    /// Whether `**` ends it.
    open: bool,
}

/// What every path and pattern must keep to; each segment goes to `take`.
fn each_segment<'a>(
    text: &'a str,
    mut take: impl FnMut(&'a str) -> Result<(), ResourceError>,
) -> Result<(), ResourceError> {
    if !(1..=RESOURCE_BYTES_MAX).contains(&text.len()) {
        return Err(ResourceError::Length);
    }
    for (count, segment) in text.split('/').enumerate() {
        if count == SEGMENTS_MAX {
            return Err(ResourceError::Segments);
        }
        match segment {
            "" => return Err(ResourceError::EmptySegment),
            "." | ".." => return Err(ResourceError::DotSegment),
            _ => take(segment)?,
        }
    }
    Ok(())
}

fn has_bad_character(segment: &str) -> bool {
    segment.chars().any(|character| character.is_whitespace() || character.is_control())
}

impl FromStr for ResourcePattern {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let mut segments = Vec::new();
        let mut open = false;
        each_segment(text, |segment| {
            if open {
                return Err(ResourceError::Wildcard); // something follows `**`
            }
            match segment {
                "**" => open = true,
                "*" => segments.push(Segment::Any),
                _ if segment.contains('*') => return Err(ResourceError::Wildcard),
                _ if has_bad_character(segment) => return Err(ResourceError::Character),
                _ => segments.push(Segment::Literal(segment.into())),
            }
            Ok(())
        })?;
        Ok(Self { segments, open })
    }
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.open.then_some("**");
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(literal) => literal,
            Segment::Any => "*",
        });
        for (at, segment) in segments.chain(rest).enumerate() {
            write!(f, "{}{segment}", if at == 0 { "" } else { "/" })?;
        }
        Ok(())
    }
}

impl Segment {
    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Literal(literal) => **literal == *segment,
        }
    }

    /// Whether every segment that `other` matches is matched by this one.
    fn contains(&self, other: &Self) -> bool {
        *self == Self::Any || self == other
    }

    fn overlaps(&self, other: &Self) -> bool {
        *self == Self::Any || *other == Self::Any || self == other
    }
}

impl ResourcePattern {
    /// The least number of segments that a path it matches has. A path is never empty, so `**` alone needs one.
    fn segments_min(&self) -> usize {
        self.segments.len().max(1)
    }

    /// The segments before the first wildcard: how many there are, and how they are written.
    pub(super) fn beginning(&self) -> (usize, String) {
        let literal = |segment: &'_ Segment| match segment {
            Segment::Literal(literal) => Some(literal.to_string()),
            Segment::Any => None,
        };
        let literals: Vec<String> = self.segments.iter().map_while(literal).collect();
        (literals.len(), literals.join("/"))
    }

    /// Whether the pattern matches the path of a query.
    #[must_use]
    pub fn matches(&self, query: &ResourceQuery<'_>) -> bool {
        let fits = if self.open {
            query.segments_len() >= self.segments.len()
        } else {
            query.segments_len() == self.segments.len()
        };
        fits && self.segments.iter().zip(query.segments()).all(|(pattern, segment)| pattern.matches(segment))
    }

    /// Whether every path that `other` matches is matched by this pattern too.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let lengths = if self.open {
            other.segments_min() >= self.segments.len()
        } else {
            !other.open && other.segments.len() == self.segments.len()
        };
        // A segment that `other` leaves to its `**` can be anything.
        let others = other.segments.iter().chain(std::iter::repeat(&Segment::Any));
        lengths && self.segments.iter().zip(others).all(|(mine, theirs)| mine.contains(theirs))
    }

    /// Whether some path is matched by both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.segments.len(), other.segments.len());
        let lengths = match (self.open, other.open) {
            (true, true) => true,
            (true, false) => theirs >= mine,
            (false, true) => mine >= theirs,
            (false, false) => mine == theirs,
        };
        lengths && self.segments.iter().zip(&other.segments).all(|(mine, theirs)| mine.overlaps(theirs))
    }
}

/// An action on a concrete path, split once so that any number of grants can be asked about it.
#[derive(Clone, Copy, Debug)]
pub struct ResourceQuery<'a> {
    action: &'a str,
    path: &'a str,
    /// Where each segment ends in `path`; the next begins one byte later.
    ends: [u16; SEGMENTS_MAX],
    count: u8,
}

impl<'a> ResourceQuery<'a> {
    /// The query for `action` on `resource`. Allocates nothing.
    ///
    /// # Errors
    /// [`ResourceError`] if either is not one concrete thing.
    pub fn new(action: &'a str, resource: &'a str) -> Result<Self, ResourceError> {
        if !super::grant::is_action(action) {
            return Err(ResourceError::Action);
        }
        let mut query = Self { action, path: resource, ends: [0; SEGMENTS_MAX], count: 0 };
        let mut end = 0;
        each_segment(resource, |segment| {
            if segment.contains('*') {
                return Err(ResourceError::Wildcard);
            }
            if has_bad_character(segment) {
                return Err(ResourceError::Character);
            }
            end += segment.len();
            // Paths are at most RESOURCE_BYTES_MAX long and have at most SEGMENTS_MAX segments.
            query.ends[usize::from(query.count)] = u16::try_from(end).map_err(|_| ResourceError::Length)?;
            query.count += 1;
            end += 1;
            Ok(())
        })?;
        Ok(query)
    }

    /// The action.
    #[must_use]
    pub fn action(&self) -> &'a str {
        self.action
    }

    /// The path.
    #[must_use]
    pub fn resource(&self) -> &'a str {
        self.path
    }

    /// The first so many segments as they are written; `None` if there are fewer.
    pub(super) fn beginning(&self, segments: usize) -> Option<&'a str> {
        match segments.checked_sub(1) {
            None => Some(""),
            Some(last) => {
                (segments <= self.segments_len()).then(|| &self.path[..usize::from(self.ends[last])])
            }
        }
    }

    fn segments_len(&self) -> usize {
        usize::from(self.count)
    }

    fn segments(&self) -> impl Iterator<Item = &'a str> + '_ {
        let mut start = 0;
        self.ends[..self.segments_len()].iter().map(move |end| {
            let segment = &self.path[start..usize::from(*end)];
            start = usize::from(*end) + 1;
            segment
        })
    }
}
