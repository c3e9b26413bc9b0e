//! Users: names, tags, passwords. What a user may do is in `permission.rs`; how one logs in, in
//! `auth.rs`.
//!
//! No random number is drawn here: whoever sets a password brings the salt.

pub mod password;

use super::limits::UserLimits;
use super::pattern::Pattern;
use super::record::{self, RecordError};
use leveret_protocol::field::{
    FieldArrayBuilder, FieldTable, FieldTableBuilder, FieldValue, OwnedTable,
};
use password::{HashingAlgorithm, PasswordHash};
use std::collections::BTreeMap;
use std::fmt;

/// Longest name of a user or virtual host, in bytes: what a short string of the protocol holds.
pub const NAME_LEN_MAX: usize = 255;
/// Most tags of one user.
pub const TAGS_MAX: usize = 64;

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Unique; at most [`NAME_LEN_MAX`] bytes.
    pub name: Box<str>,
    /// Salted hash, or none: then no password logs in.
    pub password: PasswordHash,
    /// What the management interface lets the user see and do.
    pub tags: Tags,
    /// Connections and channels the user may have open.
    pub limits: UserLimits,
}

impl User {
    /// The user as it is stored.
    pub fn to_record(&self) -> OwnedTable {
        let mut tags = FieldArrayBuilder::new();
        for tag in self.tags.iter() {
            tags.push(FieldValue::LongStr(tag.as_bytes()));
        }
        let algorithm = self.password.algorithm().name();
        let mut record = FieldTableBuilder::new()
            .with("name", FieldValue::LongStr(self.name.as_bytes()))
            .with("hash", FieldValue::Bytes(self.password.as_bytes()))
            .with("algorithm", FieldValue::LongStr(algorithm.as_bytes()))
            .with("tags", FieldValue::Array(tags.build().as_ref()));
        self.limits.write(&mut record);
        record.build()
    }

    /// The user that was stored.
    ///
    /// # Errors
    /// Not written by this version.
    pub fn from_record(record: FieldTable<'_>) -> Result<User, RecordError> {
        let algorithm = HashingAlgorithm::parse(record::text(record, "algorithm")?)
            .map_err(|_| RecordError { field: "algorithm" })?;
        let tags = record.get("tags").and_then(FieldValue::as_array);
        let tags = tags.ok_or(RecordError { field: "tags" })?;
        let tags = tags.iter().map(|tag| tag.as_str().ok_or(RecordError { field: "tags" }));
        let tags = tags.collect::<Result<Vec<_>, _>>()?;
        Ok(User {
            name: record::text(record, "name")?.into(),
            password: PasswordHash::from_bytes(algorithm, record::bytes(record, "hash")?)
                .map_err(|_| RecordError { field: "hash" })?,
            tags: Tags::new(tags).map_err(|_| RecordError { field: "tags" })?,
            limits: UserLimits::read(record)?,
        })
    }
}

/// Words attached to a user. Those the broker knows have methods; others are kept and listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Vec<Box<str>>);

impl Tags {
    /// Tags from a list of words. Blanks around them and empty words go, repeated words too.
    ///
    /// # Errors
    /// The operator's: more than [`TAGS_MAX`], or one longer than [`NAME_LEN_MAX`].
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Tags, UserError> {
        let mut tags = Tags::default();
        for word in words.into_iter().map(str::trim).filter(|word| !word.is_empty()) {
            if NAME_LEN_MAX < word.len() {
                return Err(UserError::InvalidTags);
            }
            if !tags.has(word) {
                tags.0.push(word.into());
            }
        }
        if tags.0.len() <= TAGS_MAX { Ok(tags) } else { Err(UserError::InvalidTags) }
    }

    /// Tags from the comma separated form of the HTTP API and of old exports.
    ///
    /// # Errors
    /// As [`Tags::new`].
    pub fn from_csv(text: &str) -> Result<Tags, UserError> {
        Tags::new(text.split(','))
    }

    /// Is `word` among them?
    pub fn has(&self, word: &str) -> bool {
        self.0.iter().any(|tag| &**tag == word)
    }

    /// The words, in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// May do everything the management interface offers.
    pub fn is_administrator(&self) -> bool {
        self.has("administrator")
    }

    /// May see nodes, and connections and channels of others.
    pub fn is_monitoring(&self) -> bool {
        self.has("monitoring") || self.is_administrator()
    }

    /// May set policies and parameters.
    pub fn is_policymaker(&self) -> bool {
        self.has("policymaker") || self.is_administrator()
    }

    /// May use the management interface at all.
    pub fn is_management(&self) -> bool {
        self.has("management") || self.is_monitoring() || self.is_policymaker()
    }

    /// May publish with another user's name in `user-id`.
    pub fn is_impersonator(&self) -> bool {
        self.has("impersonator")
    }
}

/// All users of the node, by name.
#[derive(Clone, Debug, Default)]
pub struct Users {
    by_name: BTreeMap<Box<str>, User>,
}

impl Users {
    /// The user called `name`.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.by_name.get(name)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut User> {
        self.by_name.get_mut(name)
    }

    /// Adds a user or replaces the one of that name, which is returned.
    pub fn put(&mut self, user: User) -> Option<User> {
        self.by_name.insert(user.name.clone(), user)
    }

    /// Removes a user. Its permissions are the caller's to remove.
    pub fn remove(&mut self, name: &str) -> Option<User> {
        self.by_name.remove(name)
    }

    /// All users, by name.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.by_name.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Checks the name of a user or virtual host about to be made.
///
/// # Errors
/// The operator's: empty, too long, or with control characters.
pub fn check_name(name: &str) -> Result<(), UserError> {
    let fine =
        !name.is_empty() && name.len() <= NAME_LEN_MAX && !name.chars().any(char::is_control);
    if fine { Ok(()) } else { Err(UserError::InvalidName(name.chars().take(64).collect())) }
}

/// The rule a new password must satisfy (`credential_validator.*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CredentialValidator {
    /// Any password will do.
    #[default]
    AcceptEverything,
    /// At least so many bytes.
    MinLength(usize),
    /// A match somewhere in the password.
    Regexp(Pattern),
}

impl CredentialValidator {
    /// Checks a password in the clear. Hashes cannot be checked and are not.
    ///
    /// # Errors
    /// The operator's; the text says which rule, never the password.
    pub fn check(&self, password: &str) -> Result<(), UserError> {
        match self {
            CredentialValidator::AcceptEverything => Ok(()),
            CredentialValidator::MinLength(min) if *min <= password.len() => Ok(()),
            CredentialValidator::MinLength(min) => {
                Err(UserError::PasswordRefused(format!("minimum required password length: {min}")))
            }
            CredentialValidator::Regexp(pattern) if pattern.matches(password) => Ok(()),
            CredentialValidator::Regexp(_) => Err(UserError::PasswordRefused(
                "provided password does not match the validator regular expression".into(),
            )),
        }
    }
}

/// Why a user cannot be made or changed: the operator's fault. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserError {
    /// Empty, too long or with control characters; its beginning.
    InvalidName(String),
    /// Too many tags, or too long ones.
    InvalidTags,
    /// A rule of [`CredentialValidator`].
    PasswordRefused(String),
    /// A password hash that is not base64; the text as given.
    HashNotBase64(String),
    /// A hash longer than any algorithm makes.
    HashTooLong,
    /// A hashing algorithm nobody knows.
    UnknownAlgorithm(String),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserError::InvalidName(name) => write!(
                f,
                "invalid name '{}': 1 to {NAME_LEN_MAX} bytes without control characters",
                name.escape_debug()
            ),
            UserError::InvalidTags => {
                write!(f, "at most {TAGS_MAX} tags of at most {NAME_LEN_MAX} bytes")
            }
            UserError::PasswordRefused(rule) => f.write_str(rule),
            UserError::HashNotBase64(_) => f.write_str("the password hash is not base64"),
            UserError::HashTooLong => f.write_str("the password hash is too long"),
            UserError::UnknownAlgorithm(name) => {
                write!(f, "unknown hashing algorithm '{}'", name.escape_debug())
            }
        }
    }
}

impl std::error::Error for UserError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::limits::Limit;

    #[test]
    fn tags_come_from_lists_and_from_commas() {
        let tags = Tags::from_csv("monitoring, management,,monitoring").expect("legal");
        assert_eq!(tags.iter().collect::<Vec<_>>(), ["monitoring", "management"]);
        assert_eq!(Tags::new(["monitoring", "management"]), Ok(tags));
        assert_eq!(Tags::from_csv("").expect("none").iter().count(), 0);
        let many = (0..=TAGS_MAX).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(Tags::from_csv(&many), Err(UserError::InvalidTags));
    }

    /// What each tag opens, as the management interface asks it.
    #[test]
    fn tags_imply_each_other_as_on_rabbitmq() {
        for (tag, administrator, monitoring, policymaker, management) in [
            ("administrator", true, true, true, true),
            ("monitoring", false, true, false, true),
            ("policymaker", false, false, true, true),
            ("management", false, false, false, true),
            ("impersonator", false, false, false, false),
            ("Administrator", false, false, false, false),
        ] {
            let tags = Tags::new([tag]).expect("legal");
            assert_eq!(tags.is_administrator(), administrator, "{tag}");
            assert_eq!(tags.is_monitoring(), monitoring, "{tag}");
            assert_eq!(tags.is_policymaker(), policymaker, "{tag}");
            assert_eq!(tags.is_management(), management, "{tag}");
            assert_eq!(tags.is_impersonator(), tag == "impersonator", "{tag}");
        }
    }

    #[test]
    fn names_have_bounds() {
        assert_eq!(check_name("u x/y"), Ok(()));
        assert_eq!(check_name(&"é".repeat(127)), Ok(()));
        for name in ["", "a\nb", "\u{7}", &"x".repeat(256)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn validators_speak_as_rabbitmq_does() {
        let refused = |validator: CredentialValidator, password: &str| {
            validator.check(password).map_err(|error| error.to_string())
        };
        assert_eq!(refused(CredentialValidator::AcceptEverything, ""), Ok(()));
        assert_eq!(refused(CredentialValidator::MinLength(3), "abc"), Ok(()));
        assert_eq!(
            refused(CredentialValidator::MinLength(3), "ab"),
            Err("minimum required password length: 3".into())
        );
        let pattern = CredentialValidator::Regexp(Pattern::new(r"\d").expect("legal"));
        assert_eq!(refused(pattern.clone(), "a1"), Ok(()));
        assert_eq!(
            refused(pattern, "secret"),
            Err("provided password does not match the validator regular expression".into())
        );
    }

    #[test]
    fn users_survive_storage() {
        for (tags, limit, password) in [("", -1, "x"), ("administrator,é", 0, "y")] {
            let user = User {
                name: "u x/y".into(),
                password: PasswordHash::new(HashingAlgorithm::Sha512, [0, 1, 2, 255], password),
                tags: Tags::from_csv(tags).expect("legal"),
                limits: UserLimits { max_channels: Limit::new(limit), ..UserLimits::default() },
            };
            assert_eq!(User::from_record(user.to_record().as_ref()), Ok(user));
        }
        assert!(User::from_record(FieldTable::EMPTY).is_err());
    }

    #[test]
    fn users_are_found_by_name_in_order() {
        let user = |name: &str| User {
            name: name.into(),
            password: PasswordHash::default(),
            tags: Tags::default(),
            limits: UserLimits::default(),
        };
        let mut users = Users::default();
        assert!(users.is_empty());
        assert_eq!(users.put(user("b")), None);
        assert_eq!(users.put(user("a")), None);
        assert_eq!(users.put(user("b")), Some(user("b")));
        users.get_mut("a").expect("there").tags = Tags::from_csv("x").expect("legal");
        assert!(users.get("a").expect("there").tags.has("x"));
        assert_eq!(users.iter().map(|user| &*user.name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(users.remove("a").is_some());
        assert_eq!((users.get("a"), users.len()), (None, 1));
    }
}
