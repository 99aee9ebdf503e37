//! The replica under attack: its own writer and reader over a simulated disk that loses power, fails and lies.
//!
//! What must hold after each crash: acknowledged ≤ cursor ≤ attempted; every row is the model's at the
//! cursor, and so is the count, the past, each table's progress and each projection. Each of these has a control below that breaks
//! it on purpose and must be caught.
//!
//! `REDTAIL_SEED` sets the seed, which is printed; `REDTAIL_CRASHES` how many crashes are simulated.

mod flips;
mod gather;
mod machine;
mod model;
mod nth;
mod power;
mod projected;

/// Seeded chance (`SplitMix64`), so that a failing run can be had again.
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// `REDTAIL_SEED`, or one from the clock; prints it.
fn seed(test: &str) -> u64 {
    let given = std::env::var("REDTAIL_SEED").ok().map(|s| s.parse().expect("REDTAIL_SEED is a number"));
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    note(&format!("{test}: REDTAIL_SEED={seed}"));
    seed
}

/// One line on the real stderr, past the test harness.
fn note(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}
