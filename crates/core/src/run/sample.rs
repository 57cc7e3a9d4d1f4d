//! Which runs are traced: the same prompt always or never.

/// A 32-bit hash of the UTF-16 units of a text, as JavaScript programs compute it.
pub fn hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_shl(5)
            .wrapping_sub(hash)
            .wrapping_add(i32::from(unit))
    })
}

/// Whether a run with this prompt is traced at that rate: 0 is never, 1 always.
pub fn is_sampled(prompt: &str, rate: f64) -> bool {
    let bucket = hash(prompt).unsigned_abs() % 100;
    f64::from(bucket) < rate * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `h = ((h << 5) - h) + c; h |= 0` in node.
    #[test]
    fn hashes_are_those_of_the_reference() {
        for (text, expected) in [
            ("", 0),
            ("a", 97),
            ("hello world", 1_794_106_052),
            ("Write a function that sorts a list", -329_133_991),
            ("ü€😀", 17_318_035),
        ] {
            assert_eq!(hash(text), expected, "{text}");
        }
    }

    /// A thousand prompts at once: the sum of their hashes, and how many are sampled at 0.3, as
    /// node has them.
    #[test]
    fn a_thousand_prompts_agree_with_the_reference() {
        let prompts = (0..1000).map(|n| format!("prompt number {n}"));
        let (mut sum, mut sampled) = (0_i32, 0);
        for prompt in prompts {
            sum = sum.wrapping_mul(31).wrapping_add(hash(&prompt));
            sampled += usize::from(is_sampled(&prompt, 0.3));
        }
        assert_eq!((sum, sampled), (232_314_548, 303));
    }

    #[test]
    fn rates_are_parts_of_a_hundred() {
        let prompts: Vec<String> = (0..1000).map(|n| format!("prompt number {n}")).collect();
        let count = |rate| prompts.iter().filter(|it| is_sampled(it, rate)).count();
        assert_eq!((count(0.0), count(1.0)), (0, 1000));
        assert!((200..400).contains(&count(0.3)), "{}", count(0.3));
        assert!(!is_sampled("a", 0.97), "its bucket is 97");
        assert!(is_sampled("a", 0.98));
    }
}
