//! Names the server makes up.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `prefix` and 22 characters of base64url over 128 bits: those of `entropy`, and a counter that
/// makes two names of one tick differ.
pub(super) fn generated_name(prefix: &str, entropy: u64, counter: u64) -> String {
    let mut name = String::with_capacity(prefix.len() + 22);
    name.push_str(prefix);
    let mut bits = u128::from(entropy) << 64 | u128::from(mix(entropy ^ mix(counter)));
    for _ in 0..22 {
        name.push(char::from(ALPHABET[(bits & 63) as usize]));
        bits >>= 6;
    }
    name
}

/// Spreads every bit over all others (the finalizer of `SplitMix64`).
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_of_one_tick_differ_and_have_rabbitmqs_length() {
        let names: BTreeSet<String> =
            (0..10_000).map(|counter| generated_name("amq.gen-", 7, counter)).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 8 + 22));
    }
}
