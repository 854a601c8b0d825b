//! A small generator of chance, seeded by the caller so that every pick can be repeated.

/// `SplitMix64`: one multiplication chain per draw, good enough to spread requests, useless for
/// secrets.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator whose draws follow from `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, not including, `n`; 0 when `n` is 0. The bias is below n / 2^32.
    pub fn below(&mut self, n: usize) -> usize {
        let wide = u128::from(self.bits()) * (n as u128);
        // The high half of a 64 x 64 bit product is below `n`, which is a usize.
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number from 0.0 up to, not including, 1.0.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double's mantissa exactly")]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_below_and_cover_the_range() {
        let mut rng = Rng::new(7);
        let mut seen = [0u32; 5];
        for _ in 0..5000 {
            seen[rng.below(5)] += 1;
            let x = rng.unit();
            assert!((0.0..1.0).contains(&x));
        }
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
