//! The hash behind "the same key goes to the same queue": it never changes, also not with a
//! release, or messages of one key would be in two queues after an upgrade.

/// FNV-1a over `bytes`, then [`mix`]ed.
pub(in super::super) fn stable_hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Spreads every bit over all others (the finalizer of `SplitMix64`).
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: nobody changes this hash by accident. Method: values computed by its definition,
    /// independently.
    #[test]
    fn hash_is_what_it_always_was() {
        assert_eq!(mix(0), 0);
        assert_eq!(stable_hash(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(stable_hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
    }
}
