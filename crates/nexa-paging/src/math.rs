//! What scores need beyond the four operations and the root, made of these: the same bits on every machine. A platform's
//! library may differ in the last bit, and a last bit can change an order.

/// The natural logarithm of a number of at least 1: `ln(m · 2ᵉ) = e · ln 2 + 2 · artanh((m - 1) / (m + 1))`, `m` being below
/// 2, so that each further term of the series is at most a ninth of the one before.
pub(crate) fn ln(mut number: f64) -> f64 {
    let mut exponent = 0.0;
    while number >= 2.0 {
        number /= 2.0;
        exponent += 1.0;
    }
    let t = (number - 1.0) / (number + 1.0);
    let (mut power, mut sum) = (t, 0.0);
    for odd in (1..=33).step_by(2) {
        sum += power / f64::from(odd);
        power *= t * t;
    }
    exponent * std::f64::consts::LN_2 + 2.0 * sum
}

/// `2^(-turns / 16)`: how much of a page's recency is left.
pub(crate) fn recency(turns: u64) -> f64 {
    // The sixteenth root of a half: four square roots, which IEEE 754 defines exactly.
    let sixteenth = 0.5f64.sqrt().sqrt().sqrt().sqrt();
    let (halvings, rest) = (turns / 16, turns % 16);
    if halvings > 64 {
        return 0.0;
    }
    let mut left = 1.0;
    for _ in 0..halvings {
        left *= 0.5;
    }
    for _ in 0..rest {
        left *= sixteenth;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        for step in 0..10_000 {
            let number = 1.0 + f64::from(step) * 0.37;
            assert!((ln(number) - number.ln()).abs() < 1e-12, "{number}");
        }
    }

    #[test]
    fn recency_halves_every_sixteen_turns() {
        assert!((recency(0) - 1.0).abs() < 1e-15 && (recency(16) - 0.5).abs() < 1e-15);
        for turns in 0..400u32 {
            let exact = (-f64::from(turns) / 16.0).exp2();
            assert!((recency(u64::from(turns)) - exact).abs() < 1e-12, "{turns}");
        }
        assert!(recency(u64::MAX) < 1e-18);
    }
}
