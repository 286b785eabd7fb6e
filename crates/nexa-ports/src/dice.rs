//! Randomness as a port. Only ids and seeds are made with it; everything else derives from those.

use std::sync::Mutex;

/// Random bits.
pub trait Dice: Send + Sync {
    /// 64 random bits.
    fn roll(&self) -> u64;

    /// 16 random bytes, enough for an id that nobody else has.
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.roll().to_le_bytes());
        bytes[8..].copy_from_slice(&self.roll().to_le_bytes());
        bytes
    }
}

/// Bits from the operating system.
#[derive(Debug, Default)]
pub struct SystemDice;

impl Dice for SystemDice {
    fn roll(&self) -> u64 {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("an operating system without randomness cannot run a node");
        u64::from_le_bytes(bytes)
    }
}

/// Bits from a seed: SplitMix64 (Steele, Lea and Flood, 2014, figure 16).
#[derive(Debug)]
pub struct SeededDice {
    state: Mutex<u64>,
}

impl SeededDice {
    /// Dice that always roll the same for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { state: Mutex::new(seed) }
    }
}

impl Dice for SeededDice {
    fn roll(&self) -> u64 {
        let mut state = self.state.lock().expect("no holder of this lock can panic");
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
