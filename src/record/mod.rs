//! Rows as bytes: the stored record and the batch of deltas that carries it there.
//!
//! The only folder that names rkyv; `state` has the records that are no rows, `projected` those of an application's
//! own types. A record is `[format][flags][shape, 2 bytes][checksum, 4
//! bytes][archive]`: shape says by which of the table's definitions the row was read, and the checksum is compared before the archive is touched, because redb verifies no pages on ordinary reads.
//! Values above [`INLINE`] bytes lie outside the record, in pieces that fill redb's pages; the record
//! keeps their length and hash. docs/format.md has the bytes.

pub(crate) mod history;
pub(crate) mod projected;
pub(crate) mod state;

use crate::error::{Error, Kind, Result};
use crate::value::ValueRef;
use rkyv::rancor;
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};
use std::ops::Range;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

/// The format of every stored record. A newer one is refused.
pub(crate) const FORMAT: u8 = 1;
/// The longest text or blob that stays inside its row's record, in bytes.
pub(crate) const INLINE: usize = 1024;
/// Header flag: at least one value of the row lies outside the record.
const HAS_LONG: u8 = 1;
const HEADER: usize = 8;

#[derive(Archive, Serialize)]
enum Stored<'a> {
    Null,
    Integer(i64),
    /// The bits of the float, so that −0.0 and every subnormal come back.
    Real(u64),
    Text(#[rkyv(with = InlineAsBox)] &'a [u8]),
    Blob(#[rkyv(with = InlineAsBox)] &'a [u8]),
    LongText(Box<Long>),
    LongBlob(Box<Long>),
    Utf16le(#[rkyv(with = InlineAsBox)] &'a [u8]),
    Utf16be(#[rkyv(with = InlineAsBox)] &'a [u8]),
}

/// A value that lies outside the record.
#[derive(Archive, Serialize, Clone, Copy)]
struct Long {
    len: u64,
    hash: u128,
}

/// What stands in front of an archive.
#[derive(Clone, Copy)]
struct Header {
    flags: u8,
    shape: u16,
}

impl Header {
    fn bytes(self, body: &[u8]) -> [u8; HEADER] {
        let [s0, s1] = self.shape.to_le_bytes();
        let seed = u64::from(self.flags) << 16 | u64::from(self.shape);
        let [c0, c1, c2, c3, ..] = xxh3_64_with_seed(body, seed).to_le_bytes();
        [FORMAT, self.flags, s0, s1, c0, c1, c2, c3]
    }
}

/// Puts header and checksum in front of what `body` appends.
fn sealed(out: &mut Vec<u8>, header: Header, body: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    body(out)?;
    let bytes = header.bytes(out.get(start + HEADER..).unwrap_or_default());
    if let Some(place) = out.get_mut(start..start + HEADER) {
        place.copy_from_slice(&bytes);
    }
    Ok(())
}

/// The archive of a stored record, once version and checksum have been compared.
fn opened(bytes: &[u8]) -> Result<(Header, &[u8])> {
    let Some((head, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(damaged("record is cut short"));
    };
    let [version, flags, s0, s1, ..] = *head;
    if version != FORMAT {
        return Err(damaged(format!("record has format {version}, this redtail reads {FORMAT}")));
    }
    let header = Header { flags, shape: u16::from_le_bytes([s0, s1]) };
    if header.bytes(body) != *head && !crate::fault::checksum_off() {
        return Err(damaged("record does not match its checksum"));
    }
    Ok((header, body))
}

fn damaged(what: impl Into<String>) -> Error {
    Error::new(Kind::Damaged, what)
}

/// Puts the stored form of something that is no row (state, chunks of long values) into bytes.
pub(crate) fn seal(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + HEADER);
    let done = sealed(&mut out, Header { flags: 0, shape: 0 }, |out| {
        out.extend_from_slice(body);
        Ok(())
    });
    assert!(done.is_ok(), "appending bytes cannot fail");
    out
}

/// Any bytes as a record whose checksum fits.
#[cfg(any(fuzzing, test))]
pub(crate) fn with_checksum(flags: u8, shape: u16, body: &[u8]) -> Vec<u8> {
    [&Header { flags, shape }.bytes(body)[..], body].concat()
}

/// What [`seal`] was given.
pub(crate) fn unseal(bytes: &[u8]) -> Result<&[u8]> {
    opened(bytes).map(|(_, body)| body)
}

/// The format that a whole replica says it has. This one record keeps its layout in every format to come, so
/// that a newer file is told from a damaged one.
pub(crate) fn stored_format(bytes: &[u8]) -> Result<u8> {
    let wrong = || damaged("the record of the format does not match its checksum");
    let (head, body) = bytes.split_first_chunk::<HEADER>().ok_or_else(wrong)?;
    let [format] = *body else { return Err(wrong()) };
    let mut want = Header { flags: 0, shape: 0 }.bytes(body);
    want[0] = format;
    if *head == want { Ok(format) } else { Err(wrong()) }
}

/// By which of its table's definitions a row was read, as its record says.
pub(crate) fn shape(record: &[u8]) -> u16 {
    let bytes = record.get(2..4).and_then(|b| b.try_into().ok());
    bytes.map_or(0, u16::from_le_bytes)
}

/// Whether two records hold the same values, in the same order.
pub(crate) fn same_values(a: &[u8], b: &[u8]) -> bool {
    a.get(HEADER..) == b.get(HEADER..)
}

/// Whether a stored row has values outside its record.
pub(crate) fn has_long(record: &[u8]) -> bool {
    record.get(1).is_some_and(|flags| flags & HAS_LONG != 0)
}

/// The deltas of one table, in one buffer: no allocation per row between source and replica.
///
/// A delta is `Put(key, record)` or `Delete(key)`; the record is the rkyv archive that redb stores.
#[derive(Default)]
pub(crate) struct Deltas {
    /// By which of the table's definitions the rows were read.
    shape: u16,
    /// At least one key holds NULL, so that its row's rowid is part of it.
    pub null_keys: bool,
    bytes: Vec<u8>,
    items: Vec<Item>,
    longs: Vec<(u16, Range<usize>)>,
}

struct Item {
    key: Range<usize>,
    /// Empty: the key is gone.
    record: Range<usize>,
    longs: Range<usize>,
}

/// One delta, borrowed.
#[derive(Clone, Copy)]
pub(crate) struct Delta<'a> {
    pub key: &'a [u8],
    pub record: Option<&'a [u8]>,
    longs: &'a [(u16, Range<usize>)],
    bytes: &'a [u8],
}

impl<'a> Delta<'a> {
    pub fn delete(key: &'a [u8]) -> Self {
        Self { key, record: None, longs: &[], bytes: &[] }
    }

    /// Whether values lie outside the record.
    pub fn has_longs(&self) -> bool {
        !self.longs.is_empty()
    }

    /// The values that lie outside the record: column and bytes.
    pub fn longs(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let bytes = self.bytes;
        self.longs.iter().map(move |(column, at)| (*column, bytes.get(at.clone()).unwrap_or_default()))
    }
}

impl Deltas {
    pub fn of(shape: u16) -> Self {
        Self { shape, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Delta<'_>> {
        self.items.iter().map(|item| Delta {
            key: self.bytes.get(item.key.clone()).unwrap_or_default(),
            record: (!item.record.is_empty())
                .then(|| self.bytes.get(item.record.clone()).unwrap_or_default()),
            longs: self.longs.get(item.longs.clone()).unwrap_or_default(),
            bytes: &self.bytes,
        })
    }

    /// The key of the last delta.
    pub fn last_key(&self) -> Option<&[u8]> {
        self.items.last().and_then(|item| self.bytes.get(item.key.clone()))
    }

    pub fn delete(&mut self, key: &[u8]) {
        let key = self.append(key);
        self.items.push(Item { key, record: 0..0, longs: 0..0 });
    }

    /// Appends one row.
    ///
    /// # Errors
    /// A row of more than 65,535 columns, or an archive of more than 2 GiB.
    pub fn put<'v>(&mut self, key: &[u8], row: impl Iterator<Item = ValueRef<'v>> + Clone) -> Result<()> {
        let key = self.append(key);
        let first_long = self.longs.len();
        for (column, value) in row.clone().enumerate().filter(|(_, v)| v.len() > INLINE) {
            // Invalid UTF-16 is rare enough to lie inside, however long.
            let (ValueRef::Text(bytes) | ValueRef::Blob(bytes)) = value else { continue };
            let at = self.append(bytes);
            let column = u16::try_from(column).map_err(|_| Error::new(Kind::TooLarge, "too many columns"))?;
            self.longs.push((column, at));
        }
        let longs = first_long..self.longs.len();
        let start = self.bytes.len();
        let stored: Vec<Stored<'_>> = row.map(stored).collect();
        let header = Header { flags: if longs.is_empty() { 0 } else { HAS_LONG }, shape: self.shape };
        sealed(&mut self.bytes, header, |out| archive(out, &stored))?;
        self.items.push(Item { key, record: start..self.bytes.len(), longs });
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }
}

fn stored(value: ValueRef<'_>) -> Stored<'_> {
    let long = |b: &[u8]| Box::new(Long { len: b.len() as u64, hash: xxh3_128(b) });
    match value {
        ValueRef::Null => Stored::Null,
        ValueRef::Integer(i) => Stored::Integer(i),
        ValueRef::Real(r) => Stored::Real(r.to_bits()),
        ValueRef::Text(t) if t.len() > INLINE => Stored::LongText(long(t)),
        ValueRef::Blob(b) if b.len() > INLINE => Stored::LongBlob(long(b)),
        ValueRef::Text(t) => Stored::Text(t),
        ValueRef::Blob(b) => Stored::Blob(b),
        ValueRef::Utf16le(t) => Stored::Utf16le(t),
        ValueRef::Utf16be(t) => Stored::Utf16be(t),
    }
}

#[derive(Archive, Serialize)]
struct Row<'a> {
    #[rkyv(with = InlineAsBox)]
    values: &'a [Stored<'a>],
}

fn archive(out: &mut Vec<u8>, values: &[Stored<'_>]) -> Result<()> {
    let taken = std::mem::take(out);
    let written = rkyv::api::high::to_bytes_in::<_, rancor::Error>(&Row { values }, taken);
    *out = written.map_err(|e| Error::new(Kind::TooLarge, format!("row cannot be archived: {e}")))?;
    Ok(())
}

/// A stored row, read in place: nothing is copied and nothing decoded before it is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Archived<'a> {
    row: &'a ArchivedRow<'a>,
    shape: u16,
}

/// A value as the record has it.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    Here(ValueRef<'a>),
    /// Outside the record: is it text, how long, and its hash.
    Outside {
        text: bool,
        len: u64,
        hash: u128,
    },
}

impl<'a> Archived<'a> {
    /// # Errors
    /// `Damaged` if the bytes are not the record that was written.
    pub fn new(record: &'a [u8]) -> Result<Self> {
        let (header, body) = opened(record)?;
        let row = rkyv::api::low::access::<ArchivedRow<'a>, rancor::Failure>(body)
            .map_err(|_| damaged("record is no archive"))?;
        Ok(Self { row, shape: header.shape })
    }

    /// A record that [`Archived::new`] has accepted before, in memory that has not changed since: its checksum is
    /// not compared again.
    ///
    /// # Errors
    /// As [`Archived::new`].
    pub fn again(record: &'a [u8]) -> Result<Self> {
        let cut = || damaged("record is cut short");
        let ([_, _, s0, s1, ..], body) = record.split_first_chunk::<HEADER>().ok_or_else(cut)?;
        let row = rkyv::api::low::access::<ArchivedRow<'a>, rancor::Failure>(body)
            .map_err(|_| damaged("record is no archive"))?;
        Ok(Self { row, shape: u16::from_le_bytes([*s0, *s1]) })
    }

    pub fn len(self) -> usize {
        self.row.values.get().len()
    }

    /// Where its values lie in this record, for [`place_at`].
    pub fn spot(self, record: &[u8]) -> Spot {
        let values = self.row.values.get();
        Spot { at: (values.as_ptr() as usize).wrapping_sub(record.as_ptr() as usize), len: values.len() }
    }

    pub fn shape(self) -> u16 {
        self.shape
    }

    pub fn place(self, column: usize) -> Option<Place<'a>> {
        self.row.values.get().get(column).map(placed)
    }
}

/// Where in a record its values lie, and how many there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    at: usize,
    len: usize,
}

/// One value of a record that [`Archived::new`] has accepted before, in memory that has not changed since: of the
/// archive only this value is checked again, however many there are. `None` if there is no such column.
///
/// # Errors
/// `Damaged` if there is no value at the spot.
pub(crate) fn place_at(record: &[u8], spot: Spot, column: usize) -> Result<Option<Place<'_>>> {
    if column >= spot.len {
        return Ok(None);
    }
    let (at, body) = (spot.at.wrapping_sub(HEADER), record.get(HEADER..).unwrap_or_default());
    let at = at.wrapping_add(column.wrapping_mul(size_of::<ArchivedStored<'_>>()));
    let value = rkyv::api::low::access_pos::<ArchivedStored<'_>, rancor::Failure>(body, at)
        .map_err(|_| damaged("record has no value there"))?;
    Ok(Some(placed(value)))
}

fn placed<'a>(value: &'a ArchivedStored<'_>) -> Place<'a> {
    let outside = |text, long: &ArchivedLong| Place::Outside {
        text,
        len: long.len.to_native(),
        hash: long.hash.to_native(),
    };
    match value {
        ArchivedStored::Null => Place::Here(ValueRef::Null),
        ArchivedStored::Integer(i) => Place::Here(ValueRef::Integer(i.to_native())),
        ArchivedStored::Real(r) => Place::Here(ValueRef::Real(f64::from_bits(r.to_native()))),
        ArchivedStored::Text(t) => Place::Here(ValueRef::Text(t)),
        ArchivedStored::Blob(b) => Place::Here(ValueRef::Blob(b)),
        ArchivedStored::Utf16le(t) => Place::Here(ValueRef::Utf16le(t)),
        ArchivedStored::Utf16be(t) => Place::Here(ValueRef::Utf16be(t)),
        ArchivedStored::LongText(long) => outside(true, long),
        ArchivedStored::LongBlob(long) => outside(false, long),
    }
}

/// The sizes of the pieces in which a long value is stored.
///
/// redb rounds a page up to a power of two of 4 KiB; pieces that fill 16, 8 and 4 KiB waste only the last.
pub(crate) fn pieces(mut bytes: &[u8], key_len: usize) -> impl Iterator<Item = &[u8]> {
    let room = key_len + HEADER + 64;
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let sizes = [16_384, 8_192, 4_096].map(|page: usize| page.saturating_sub(room).max(1_024));
        let fits = sizes.into_iter().find(|size| *size <= bytes.len()).unwrap_or(bytes.len());
        let (piece, rest) = bytes.split_at(fits);
        bytes = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Vec<ValueRef<'static>> {
        let bits = [0x8000_0000_0000_0000, 1, 0x7FF0_0000_0000_0000].map(f64::from_bits);
        let mut row = vec![ValueRef::Null, ValueRef::Integer(i64::MIN), ValueRef::Integer(i64::MAX)];
        row.extend(bits.map(ValueRef::Real));
        row.extend([
            ValueRef::Text(b""),
            ValueRef::Text(b"a\0\xFF"),
            ValueRef::Blob(b""),
            ValueRef::Blob(&[7; INLINE]),
        ]);
        row
    }

    #[test]
    fn a_row_reads_back_bit_for_bit_at_every_address() {
        let mut deltas = Deltas::default();
        deltas.put(b"k", row().into_iter()).unwrap();
        let record = deltas.iter().next().unwrap().record.unwrap().to_vec();
        for shift in 0..8 {
            let mut moved = vec![0; shift];
            moved.extend_from_slice(&record);
            let archived = Archived::new(&moved[shift..]).unwrap();
            assert_eq!(archived.len(), row().len());
            let spot = archived.spot(&moved[shift..]);
            for (i, want) in row().iter().enumerate() {
                let Some(Place::Here(got)) = archived.place(i) else { panic!("column {i} is outside") };
                assert_eq!(got, *want);
                let Ok(Some(Place::Here(got))) = place_at(&moved[shift..], spot, i) else {
                    panic!("{i}: not there")
                };
                assert_eq!(got, *want);
            }
            assert!(matches!(place_at(&moved[shift..], spot, row().len()), Ok(None)));
        }
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let mut deltas = Deltas::default();
        deltas.put(b"k", row().into_iter()).unwrap();
        let record = deltas.iter().next().unwrap().record.unwrap().to_vec();
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Archived::new(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_bytes_of_format_1_stay_as_they_are() {
        let mut deltas = Deltas::default();
        deltas.put(b"k", [ValueRef::Integer(5), ValueRef::Text(b"ab"), ValueRef::Null].into_iter()).unwrap();
        let record = deltas.iter().next().unwrap().record.unwrap().to_vec();
        let hex = record.iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        assert_eq!(
            hex,
            "010000004b167f06616201050000000000000003f4ffffff02000000000000000000000000e5ffffff03000000"
        );
    }

    #[test]
    fn a_long_value_leaves_the_record_and_comes_apart_in_pieces() {
        let long = vec![9; 100_000];
        let mut deltas = Deltas::default();
        deltas.put(b"k", [ValueRef::Integer(1), ValueRef::Blob(&long)].into_iter()).unwrap();
        let delta = deltas.iter().next().unwrap();
        assert!(has_long(delta.record.unwrap()) && delta.record.unwrap().len() < 200);
        let (column, bytes) = delta.longs().next().unwrap();
        assert_eq!((column, bytes), (1, long.as_slice()));
        let joined: Vec<u8> = pieces(bytes, 30).flatten().copied().collect();
        assert_eq!(joined, long);
        assert!(pieces(bytes, 30).all(|p| p.len() <= 16_384 - 30));
    }
}
