//! Records of an application's own types: what rkyv makes of them, sealed like a row's record.
//!
//! A record is `[format][flags][0, 2 bytes][checksum, 4 bytes][archive]`. With the flag [`FAILED`] there is no archive
//! but the reason why the row has none: then reading it is an error, and never a record of what the row was before.

use super::{HEADER, Header, damaged, opened, sealed};
use crate::error::{Error, Kind, Result};
use rkyv::api::high::{HighSerializer, HighValidator, to_bytes_in};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::{Archive, Portable, Serialize};

/// Header flag: the projection of this row failed, and why stands in place of the archive.
const FAILED: u8 = 2;
/// The longest reason that is kept, in bytes.
const REASON: usize = 500;

mod sealed_trait {
    pub trait Sealed {}
}

/// What rkyv can archive: any type with its derives `Archive` and `Serialize`, at any address.
///
/// Nobody implements it by hand. It says of a type what a [`Project`](crate::Project) needs of it, and names rkyv
/// nowhere but in its bounds: rkyv 0.8, the application's as redtail's.
///
/// ```
/// fn is_archivable<T: redtail::Archivable>() {}
///
/// #[derive(rkyv::Archive, rkyv::Serialize)]
/// struct Episode {
///     task: String,
///     reward: Option<f64>,
/// }
///
/// is_archivable::<Episode>();
/// ```
pub trait Archivable: sealed_trait::Sealed + Sized + 'static {
    /// The archived form, read straight from the replica's page: rkyv's `Archived` type.
    type View: 'static;

    #[doc(hidden)]
    fn write(&self) -> Result<Vec<u8>>;
    #[doc(hidden)]
    fn read(archive: &[u8]) -> Option<&Self::View>;
}

impl<T> sealed_trait::Sealed for T where T: Archive {}

impl<T> Archivable for T
where
    T: Archive + for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, rancor::Error>> + 'static,
    T::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + 'static,
{
    type View = T::Archived;

    fn write(&self) -> Result<Vec<u8>> {
        // A page's bytes lie anywhere.
        const { assert!(align_of::<T::Archived>() == 1, "an archived type must be readable at any address") };
        let mut out = Vec::new();
        sealed(&mut out, Header { flags: 0, shape: 0 }, |out| {
            let written = to_bytes_in::<_, rancor::Error>(self, std::mem::take(out));
            *out = written.map_err(|e| Error::new(Kind::TooLarge, format!("it cannot be archived: {e}")))?;
            Ok(())
        })?;
        Ok(out)
    }

    fn read(archive: &[u8]) -> Option<&Self::View> {
        rkyv::access::<T::Archived, rancor::Error>(archive).ok()
    }
}

/// The record of a row whose projection failed.
pub(crate) fn failure(reason: &str) -> Vec<u8> {
    let most = reason.len().min(REASON);
    let end = (0..=most).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    let reason = reason.get(..end).unwrap_or_default();
    let mut out = Vec::new();
    let done = sealed(&mut out, Header { flags: FAILED, shape: 0 }, |out| {
        out.extend_from_slice(reason.as_bytes());
        Ok(())
    });
    assert!(done.is_ok(), "appending bytes cannot fail");
    out
}

/// The reason that stands in place of an archive, if there is one.
///
/// # Errors
/// `Damaged` if the bytes are not what was written.
pub(crate) fn check(record: &[u8]) -> Result<Option<String>> {
    let (header, body) = opened(record)?;
    match header.flags {
        0 => Ok(None),
        FAILED => Ok(Some(String::from_utf8_lossy(body).into_owned())),
        other => Err(damaged(format!("a projected record has flags {other}"))),
    }
}

/// The archive of a record that [`check`] has accepted.
pub(crate) fn archive(record: &[u8]) -> &[u8] {
    record.get(HEADER..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Archive, Serialize)]
    struct Sample {
        name: String,
        score: Option<f64>,
    }

    fn sample() -> Vec<u8> {
        Sample { name: "a name longer than fits inline".to_owned(), score: Some(0.5) }.write().unwrap()
    }

    #[test]
    fn a_record_reads_back_at_every_address() {
        for shift in 0..8 {
            let moved = [vec![0; shift], sample()].concat();
            let record = &moved[shift..];
            assert_eq!(check(record).unwrap(), None);
            let view = Sample::read(archive(record)).unwrap();
            assert_eq!(
                (&*view.name, view.score.as_ref().unwrap().to_native()),
                ("a name longer than fits inline", 0.5)
            );
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused() {
        for whole in [sample(), failure("column \"x\" is not known")] {
            for bit in 0..whole.len() * 8 {
                let mut bad = whole.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(check(&bad).unwrap_err().kind(), Kind::Damaged, "bit {bit}");
            }
            for len in 0..whole.len() {
                assert_eq!(check(&whole[..len]).unwrap_err().kind(), Kind::Damaged, "cut to {len}");
            }
        }
    }

    #[test]
    fn a_failure_keeps_its_reason_within_a_limit() {
        assert_eq!(check(&failure("why")).unwrap().unwrap(), "why");
        let long = "ä".repeat(REASON);
        assert_eq!(check(&failure(&long)).unwrap().unwrap(), "ä".repeat(REASON / 2));
    }
}
