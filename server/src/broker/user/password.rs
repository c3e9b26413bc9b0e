//! Password hashes in RabbitMQ's three formats.
//!
//! ```text
//! base64( salt[4] || H(salt || password) )     H: SHA-256 (default), SHA-512, MD5 (old exports)
//! ```
//!
//! They are fast hashes, kept because users must move over and back without a new password.

use super::UserError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};
use std::fmt;
use subtle::ConstantTimeEq;

/// Bytes of salt in front of a digest.
pub const SALT_LEN: usize = 4;
/// Longest hash accepted, in bytes; the longest ever made is SHA-512's.
const HASH_LEN_MAX: usize = 256;
const _: () = assert!(SALT_LEN + 64 <= HASH_LEN_MAX, "SHA-512 fits");

/// Which digest a password was hashed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashingAlgorithm {
    /// What new passwords get.
    #[default]
    Sha256,
    /// For those who configured it.
    Sha512,
    /// Of exports older than RabbitMQ 3.6.
    Md5,
}

impl HashingAlgorithm {
    /// The name in exports: `rabbit_password_hashing_sha256`.
    pub fn name(self) -> &'static str {
        match self {
            HashingAlgorithm::Sha256 => "rabbit_password_hashing_sha256",
            HashingAlgorithm::Sha512 => "rabbit_password_hashing_sha512",
            HashingAlgorithm::Md5 => "rabbit_password_hashing_md5",
        }
    }

    /// The algorithm of that name.
    ///
    /// # Errors
    /// The operator's: there is none.
    pub fn parse(name: &str) -> Result<HashingAlgorithm, UserError> {
        match name {
            "rabbit_password_hashing_sha256" => Ok(HashingAlgorithm::Sha256),
            "rabbit_password_hashing_sha512" => Ok(HashingAlgorithm::Sha512),
            "rabbit_password_hashing_md5" => Ok(HashingAlgorithm::Md5),
            _ => Err(UserError::UnknownAlgorithm(name.chars().take(64).collect())),
        }
    }

    /// `salt || H(salt || password)`.
    fn hash(self, salt: &[u8], password: &[u8]) -> Vec<u8> {
        fn digest<D: Digest>(salt: &[u8], password: &[u8]) -> Vec<u8> {
            let digest = D::new().chain_update(salt).chain_update(password).finalize();
            [salt, &digest].concat()
        }
        match self {
            HashingAlgorithm::Sha256 => digest::<Sha256>(salt, password),
            HashingAlgorithm::Sha512 => digest::<Sha512>(salt, password),
            HashingAlgorithm::Md5 => digest::<Md5>(salt, password),
        }
    }
}

/// A user's password as it is stored. The default is none: no password logs in.
///
/// Imported hashes are kept as they are, also those that no password can match.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PasswordHash {
    algorithm: HashingAlgorithm,
    bytes: Box<[u8]>,
}

impl PasswordHash {
    /// Hashes `password` with a salt from the caller's random numbers.
    pub fn new(algorithm: HashingAlgorithm, salt: [u8; SALT_LEN], password: &str) -> PasswordHash {
        let bytes = algorithm.hash(&salt, password.as_bytes()).into();
        PasswordHash { algorithm, bytes }
    }

    /// A hash as exports and the HTTP API carry it. Empty text is no password.
    ///
    /// # Errors
    /// The operator's: not base64, or too long to be a hash.
    pub fn from_base64(algorithm: HashingAlgorithm, text: &str) -> Result<PasswordHash, UserError> {
        if HASH_LEN_MAX * 2 < text.len() {
            return Err(UserError::HashTooLong);
        }
        let bytes = STANDARD.decode(text).map_err(|_| UserError::HashNotBase64(text.to_owned()))?;
        PasswordHash::from_bytes(algorithm, &bytes)
    }

    /// The same from the bytes behind the base64.
    ///
    /// # Errors
    /// Too long to be a hash.
    pub fn from_bytes(
        algorithm: HashingAlgorithm,
        bytes: &[u8],
    ) -> Result<PasswordHash, UserError> {
        if HASH_LEN_MAX < bytes.len() {
            return Err(UserError::HashTooLong);
        }
        Ok(PasswordHash { algorithm, bytes: bytes.into() })
    }

    /// Does `password` match? In a time that tells nothing about the hash. The empty password and
    /// the empty hash match nothing.
    pub fn verify(&self, password: &[u8]) -> bool {
        let (salt, _) = self.bytes.split_at(SALT_LEN.min(self.bytes.len()));
        let expected = self.algorithm.hash(salt, password);
        let same: bool = expected.ct_eq(&self.bytes).into();
        same && !password.is_empty() && SALT_LEN < self.bytes.len()
    }

    /// Base64 of salt and digest, empty for none.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.bytes)
    }

    /// Salt and digest, empty for none.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The algorithm of this hash.
    pub fn algorithm(&self) -> HashingAlgorithm {
        self.algorithm
    }
}

/// Says the algorithm and nothing else: hashes stay out of logs.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.bytes.is_empty() { "none" } else { "set" };
        write!(f, "PasswordHash({}, {state})", self.algorithm.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 4] = [0x90, 0x8d, 0xc6, 0x0a];

    /// Goal: hashes made by RabbitMQ log in here and ours there. Method: vectors of its
    /// documentation (salt 908dc60a, password `test12`), one per algorithm.
    #[test]
    fn known_hashes_are_reproduced() {
        for (algorithm, base64) in [
            (HashingAlgorithm::Sha256, "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"),
            (
                HashingAlgorithm::Sha512,
                "kI3GChuNuIYf8lRbCCxZjgjKwsY19ns6+uFO0zcXRBGA/XGJPYD8OWMy7EB8TaOmAzjP2azv84GbIN\
                 YwX2cDWb4DHnc=",
            ),
            (HashingAlgorithm::Md5, "kI3GChNpte2FApYFXScl+0dIluk="),
        ] {
            let made = PasswordHash::new(algorithm, SALT, "test12");
            assert_eq!(made.to_base64(), base64, "{}", algorithm.name());
            let read = PasswordHash::from_base64(algorithm, base64).expect("base64");
            assert_eq!(read, made);
            assert!(read.verify(b"test12"));
            assert!(!read.verify(b"test13"));
            assert!(!read.verify(b""));
            assert_eq!(HashingAlgorithm::parse(algorithm.name()), Ok(algorithm));
        }
    }

    #[test]
    fn nothing_matches_an_empty_hash_or_password() {
        let empty_password = PasswordHash::new(HashingAlgorithm::Sha256, SALT, "");
        assert!(!empty_password.verify(b""));
        for short in ["", "kI3G", "kI3GCg=="] {
            let hash = PasswordHash::from_base64(HashingAlgorithm::Sha256, short).expect("base64");
            assert!(!hash.verify(b""), "{short}");
            assert!(!hash.verify(b"test12"), "{short}");
        }
    }

    #[test]
    fn a_hash_of_another_algorithm_is_kept_and_matches_nothing() {
        let base64 = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        let hash = PasswordHash::from_base64(HashingAlgorithm::Sha512, base64).expect("base64");
        assert!(!hash.verify(b"test12"));
        assert_eq!(hash.to_base64(), base64);
    }

    #[test]
    fn what_is_no_hash_is_refused_by_name() {
        let parse = |text: &str| PasswordHash::from_base64(HashingAlgorithm::Sha256, text);
        assert_eq!(parse("bad!"), Err(UserError::HashNotBase64("bad!".into())));
        assert_eq!(parse(&"A".repeat(4096)), Err(UserError::HashTooLong));
        assert!(HashingAlgorithm::parse("bcrypt").is_err());
    }

    #[test]
    fn debug_output_holds_no_hash() {
        let hash = PasswordHash::new(HashingAlgorithm::Sha256, SALT, "test12");
        assert_eq!(format!("{hash:?}"), "PasswordHash(rabbit_password_hashing_sha256, set)");
    }
}
