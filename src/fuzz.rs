//! What reads bytes that may be anything, for the fuzz targets in `fuzz/` and for `cargo test`.
//!
//! Exists in tests and under `--cfg fuzzing` only. Each target must return whatever it is given: a panic, or a
//! broken promise asserted here, is a bug.

use crate::key::{self, Collation};
use crate::record::{self, Archived, Place, state};

/// Stored records as they are, and the same bytes with a checksum that fits, which the checksum would keep from
/// being read at all.
pub fn record(bytes: &[u8]) {
    read(bytes);
    let Some((shape, body)) = bytes.split_first_chunk::<3>() else { return };
    let [flags, low, high] = *shape;
    read(&record::with_checksum(flags, u16::from_le_bytes([low, high]), body));
}

fn read(bytes: &[u8]) {
    if let Ok(row) = Archived::new(bytes) {
        for column in 0..=row.len() {
            if let Some(Place::Here(value)) = row.place(column) {
                assert!(value.len() <= bytes.len(), "a value is larger than its record");
            }
        }
    }
    let _ = record::stored_format(bytes);
    let _ = record::projected::check(bytes);
    let _ = state::decode_projections(bytes);
    let _ = state::decode_cursor(bytes);
    let _ = state::decode_past(bytes);
    let _ = state::decode_table(bytes);
}

/// Canonical keys: what is read from one, written again and read again, stays as it is.
pub fn key(bytes: &[u8]) {
    let Some((first, key)) = bytes.split_first() else { return };
    let collations: Vec<Collation> = (0..=first % 3)
        .map(|i| match (first >> (2 + 2 * i)) & 3 {
            0 | 3 => Collation::Binary,
            1 => Collation::Nocase,
            _ => Collation::Rtrim,
        })
        .collect();
    let Some(values) = key::decode(key, &collations) else { return };
    assert_eq!(values.len(), collations.len(), "as many values as components");
    let write = |values: &[crate::Value]| {
        let mut out = Vec::new();
        for (value, collation) in values.iter().zip(&collations) {
            key::push(&mut out, value.as_ref(), *collation);
        }
        out
    };
    let canonical = write(&values);
    let again = key::decode(&canonical, &collations).map(|values| write(&values));
    assert_eq!(again.as_ref(), Some(&canonical), "a canonical key reads back as itself");
}

/// Answers of a server, which may be anyone's.
#[cfg(feature = "remote")]
pub fn answer(bytes: &[u8]) {
    crate::source::remote::fuzz::answer(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Deltas;
    use crate::value::ValueRef;

    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % limit
        }

        fn byte(&mut self) -> u8 {
            u8::try_from(self.below(256)).unwrap()
        }

        /// Changes a few bytes, cuts, doubles a part or puts another in.
        fn mutate(&mut self, good: &[u8]) -> Vec<u8> {
            let mut bytes = good.to_vec();
            for _ in 0..=self.below(4) {
                let at = self.below(bytes.len() + 1);
                match self.below(6) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, self.byte()),
                    2 => {
                        let part = bytes[at..].iter().copied().take(16).collect::<Vec<u8>>();
                        bytes.extend(part);
                    }
                    _ if at < bytes.len() => {
                        let edge = [0, 1, 0x7F, 0x80, 0xFF, self.byte()];
                        bytes[at] = edge[self.below(edge.len())];
                    }
                    _ => {}
                }
            }
            bytes
        }
    }

    /// `REDTAIL_FUZZ_ROUNDS` sets how many inputs; `REDTAIL_SEED` which.
    fn rounds(default: u64) -> (u64, u64) {
        let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
        let seed = number("REDTAIL_SEED").unwrap_or(0x0F0F);
        (number("REDTAIL_FUZZ_ROUNDS").unwrap_or(default), seed)
    }

    /// With `REDTAIL_FUZZ_SEEDS=FOLDER`, leaves good inputs there for cargo-fuzz to begin with.
    fn leave(target: &str, good: &[impl AsRef<[u8]>]) {
        let Some(folder) = std::env::var_os("REDTAIL_FUZZ_SEEDS") else { return };
        let folder = std::path::Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (n, bytes) in good.iter().enumerate() {
            std::fs::write(folder.join(format!("good-{n}")), bytes).unwrap();
        }
    }

    #[test]
    fn no_bytes_make_the_record_decoder_panic() {
        let mut deltas = Deltas::of(3);
        let long = [5; 3000];
        let values = [
            ValueRef::Null,
            ValueRef::Integer(-1),
            ValueRef::Real(0.5),
            ValueRef::Text(b"abc"),
            ValueRef::Blob(&[0, 255]),
            ValueRef::Blob(&long),
            ValueRef::Utf16le(&[1, 0xD8]),
        ];
        deltas.put(b"k", values.iter().copied()).unwrap();
        let row = deltas.iter().next().unwrap().record.unwrap().to_vec();
        let cursor = state::encode_cursor(&crate::cursor::Cursor::default()).unwrap();
        let past = state::encode_past(&[]).unwrap();
        // Behind the header, as `record` puts its own in front.
        let bare = |sealed: &[u8]| [&[0, 3, 0][..], &sealed[8..]].concat();
        let good = [bare(&row), bare(&cursor), bare(&past), row, cursor];
        leave("record", &good);
        let (rounds, seed) = rounds(20_000);
        let mut chance = Chance(seed);
        for round in 0..rounds {
            let bytes = {
                let from = chance.below(good.len());
                chance.mutate(&good[from])
            };
            let survived = std::panic::catch_unwind(|| record(&bytes));
            assert!(survived.is_ok(), "round {round} of seed {seed}: {bytes:02x?}");
        }
    }

    #[cfg(feature = "remote")]
    #[test]
    fn no_answer_of_a_server_makes_its_reader_panic() {
        const JSON: &[u8] = b"\x00{\"baton\":null,\"base_url\":null,\"results\":[{\"type\":\"ok\",\"response\":\
            {\"type\":\"batch\",\"result\":{\"step_results\":[{\"rows_read\":18446744073709551615,\"rows\":\
            [[{\"type\":\"integer\",\"value\":\"1\"},{\"type\":\"blob\",\"base64\":\"aTU7bnpuAA\"}]]},\
            {\"rows_read\":9,\"rows\":[[{\"type\":\"float\",\"value\":1.5},{\"type\":\"text\",\"value\":\"a\"},\
            {\"type\":\"null\"}]]}],\"step_errors\":[null,null]}}},{\"type\":\"error\",\"error\":\
            {\"message\":\"no\\nsuch\",\"code\":\"SQLITE_BUSY\"}}]}";
        let good: [&[u8]; 7] = [
            JSON,
            b"\x03i-5;r-Inf;nt3:\xff:\0b0:r2.5e-05;zn",
            b"\x23t6100;i5;bFF;rNaN;",
            b"\x04t3;b5;zni1;r0.5;nn",
            b"\x05{\"error\":\"a\nb\"}",
            b"\x06libsql://user@[::1]:80/x?y#z",
            b"\x07: keep\n\nevent: x\ndata: {}\n\n",
        ];
        leave("answer", &good);
        let (rounds, seed) = rounds(50_000);
        let mut chance = Chance(seed);
        for round in 0..rounds {
            let bytes = {
                let from = chance.below(good.len());
                if round < 7 {
                    good[usize::try_from(round).unwrap()].to_vec()
                } else {
                    chance.mutate(good[from])
                }
            };
            let survived = std::panic::catch_unwind(|| answer(&bytes));
            assert!(survived.is_ok(), "round {round} of seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn no_bytes_make_the_key_decoder_panic() {
        let mut good = vec![0b0000_0010];
        for value in [ValueRef::Integer(5), ValueRef::Text(b"a\0b"), ValueRef::Real(-0.0)] {
            key::push(&mut good, value, Collation::Binary);
        }
        leave("key", &[&good]);
        let (rounds, seed) = rounds(50_000);
        let mut chance = Chance(seed);
        for round in 0..rounds {
            let bytes = chance.mutate(&good);
            let survived = std::panic::catch_unwind(|| key(&bytes));
            assert!(survived.is_ok(), "round {round} of seed {seed}: {bytes:02x?}");
        }
    }
}
