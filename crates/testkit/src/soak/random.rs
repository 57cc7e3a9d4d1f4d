//! A small generator whose sequence depends on the seed alone (SplitMix64).

/// The generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % end as u64).unwrap_or(0)
    }

    /// One of them; there is at least one.
    pub(super) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    pub(super) fn of_mut<'a, T>(&mut self, all: &'a mut [T]) -> &'a mut T {
        let at = self.below(all.len());
        &mut all[at]
    }

    /// A rank below `ranks`, Zipf-distributed: rank r comes with a weight of 1 / (r + 1).
    pub fn zipf(&mut self, ranks: usize) -> usize {
        let total: f64 = (1..=ranks).map(|rank| 1.0 / rank as f64).sum();
        let mut at = (self.draw() >> 11) as f64 / (1u64 << 53) as f64 * total;
        for rank in 0..ranks {
            at -= 1.0 / (rank + 1) as f64;
            if at < 0.0 {
                return rank;
            }
        }
        ranks - 1
    }
}
