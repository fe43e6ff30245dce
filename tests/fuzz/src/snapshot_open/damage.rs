//! Changes of a snapshot, behind which its hashes are made right again.

use arbitrary::{Arbitrary as _, Result, Unstructured};
use jeton_core::snapshot::{Manifest, PartRef, part_name};

use super::sample::{Files, Sample};

const CHANGES_MAX: usize = 12;
const PART_BYTES_MAX: usize = 16 * 1024;
/// How often a part may be named again.
const PARTS_MAX: usize = 40;

/// A snapshot with the bytes of each part, in the manifest's order.
pub(super) struct Damaged {
    pub(super) manifest: Manifest,
    parts: Vec<Vec<u8>>,
}

impl Damaged {
    pub(super) fn new(sample: &Sample) -> Self {
        let parts = sample.manifest.parts().map(|part| sample.files.0[&part_name(part)].clone()).collect();
        Self { manifest: sample.manifest.clone(), parts }
    }

    /// Takes changes from the input.
    pub(super) fn change(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        for _ in 0..input.int_in_range(0..=CHANGES_MAX)? {
            let at = input.choose_index(self.parts.len())?;
            match input.int_in_range(0..=9_u8)? {
                0..=4 => self.change_bytes(at, input)?,
                5 => {
                    let other = input.choose_index(self.parts.len())?;
                    self.parts.swap(at, other);
                }
                6 => self.parts[at] = self.parts[input.choose_index(self.parts.len())?].clone(),
                _ => self.change_manifest(input)?,
            }
        }
        self.make_right();
        Ok(())
    }

    fn change_bytes(&mut self, at: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let part = &mut self.parts[at];
        let place = input.int_in_range(0..=part.len())?;
        let bytes = number(input)?.to_le_bytes();
        let bytes = &bytes[..input.int_in_range(1..=8)?];
        match input.int_in_range(0..=3_u8)? {
            0 | 1 => {
                let end = part.len().min(place + bytes.len());
                part[place..end].copy_from_slice(&bytes[..end - place]);
            }
            2 => part.truncate(place),
            _ => {
                part.splice(place..place, bytes.iter().copied());
                part.truncate(PART_BYTES_MAX);
            }
        }
        Ok(())
    }

    fn change_manifest(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let value = number(input)?;
        #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
        let short = value as u32;
        let manifest = &mut self.manifest;
        match input.int_in_range(0..=12_u8)? {
            0 => manifest.sequence = value,
            1 => manifest.time_ms = value,
            2 => manifest.tokens = value,
            3 => manifest.serial = value,
            4 => manifest.open = (value != 0).then_some(short),
            5 => manifest.epoch = short,
            6 => manifest.segment_records = short,
            which => {
                if manifest.segments.is_empty() {
                    return Ok(());
                }
                let at = input.choose_index(manifest.segments.len())?;
                match which {
                    7 => manifest.segments[at].number = short,
                    8 => manifest.segments[at].serial = value,
                    9 => manifest.segments[at].live = short,
                    10 => {
                        manifest.segments[at].used = short;
                        self.parts[at].resize((short as usize * 64).min(PART_BYTES_MAX), 0);
                    }
                    11 => {
                        manifest.segments.remove(at);
                        self.parts.remove(at);
                    }
                    _ => self.name_again(input)?,
                }
            }
        }
        Ok(())
    }

    /// One of the lists of parts has one more or one less.
    fn name_again(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let which = input.choose_index(5)?;
        let more = bool::arbitrary(input)? && self.parts.len() < PARTS_MAX;
        let before: usize =
            self.manifest.segments.len() + self.lists()[..which].iter().map(|list| list.len()).sum::<usize>();
        let bytes = self.parts[input.choose_index(self.parts.len())?].clone();
        let list = &mut self.lists()[which];
        if more {
            list.push(PartRef { hash: [0; 32], bytes: 0 });
            let at = before + list.len() - 1;
            self.parts.insert(at, bytes);
        } else if list.pop().is_some() {
            let at = before + list.len();
            self.parts.remove(at);
        }
        Ok(())
    }

    /// The lists of parts, in the manifest's order.
    fn lists(&mut self) -> [&mut Vec<PartRef>; 5] {
        let Manifest { table, subjects, claim_sets, keys, counters, .. } = &mut self.manifest;
        [table, subjects, claim_sets, keys, counters]
    }

    fn make_right(&mut self) {
        let right =
            |bytes: &Vec<u8>| PartRef { hash: *blake3::hash(bytes).as_bytes(), bytes: bytes.len() as u64 };
        let parts = std::mem::take(&mut self.parts);
        let mut refs = parts.iter().map(right);
        for segment in &mut self.manifest.segments {
            segment.part = refs.next().expect("each part has bytes");
        }
        for part in self.lists().into_iter().flatten() {
            *part = refs.next().expect("each part has bytes");
        }
        self.manifest.rest = refs.next().expect("each part has bytes");
        assert!(refs.next().is_none(), "no part is left over");
        self.parts = parts;
    }

    /// The files of it.
    pub(super) fn files(&self) -> Files {
        let named = self.manifest.parts().map(part_name).zip(self.parts.iter().cloned());
        Files(named.collect())
    }
}

/// Numbers at which something may begin or end, and any.
fn number(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match input.int_in_range(0..=7_u8)? {
        0 => u64::MAX,
        1 => 1 << 31,
        2 => u64::from(u32::MAX),
        3 => 1 << input.int_in_range(0..=63_u32)?,
        4 => u64::arbitrary(input)?,
        _ => input.int_in_range(0..=40)?,
    })
}
