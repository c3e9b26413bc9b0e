//! The keys RabbitMQ knows and this broker does not serve, read from `known_keys.txt`.

use super::syntax::Name;

/// What becomes of a key that is not in the table of served ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Means nothing here and changes nothing a client can see.
    Ignored,
    /// Asks for something that is not there: worth a warning.
    Unsupported,
}

const KNOWN_KEYS: &str = include_str!("known_keys.txt");

/// The TLS options that each `.@tls` line of the file stands for.
const TLS_OPTIONS: &[&str] = &[
    "bypass_pem_cache",
    "cacertfile",
    "cacerts.$name",
    "cert",
    "certfile",
    "ciphers.$cipher",
    "client_renegotiation",
    "crl_check",
    "crl_sources.$index",
    "crl_sources.$index.path",
    "crl_sources.$index.timeout",
    "depth",
    "dh",
    "dhfile",
    "eccs.$curve",
    "fail_if_no_peer_cert",
    "honor_cipher_order",
    "honor_ecc_order",
    "hostname_verification",
    "key.DSAPrivateKey",
    "key.PrivateKeyInfo",
    "key.RSAPrivateKey",
    "keyfile",
    "log_alert",
    "log_level",
    "password",
    "peer_verification",
    "psk_identity",
    "reuse_session",
    "reuse_sessions",
    "secure_renegotiate",
    "sni",
    "verify",
    "versions.$version",
];

/// How a key of RabbitMQ stands here; `None` when RabbitMQ has no such key either.
pub(super) fn standing(name: &Name) -> Option<Standing> {
    patterns().find(|(_, pattern)| matches(pattern, &name.0)).map(|(standing, _)| standing)
}

/// Values that ask for nothing that is not here: a file that says so is not worth a warning.
const HARMLESS: &[(&str, &[&str])] = &[
    ("auth_backends.$num", &["internal", "rabbit_auth_backend_internal"]),
    (
        "cluster_formation.peer_discovery_backend",
        &["classic_config", "rabbit_peer_discovery_classic_config"],
    ),
    ("cluster_formation.target_cluster_size_hint", &["1"]),
    ("exchange_types.local_random.enabled", &["true"]),
    ("listeners.ssl", &["none"]),
    ("log.exchange", &["false"]),
    ("log.syslog", &["false"]),
    ("log.journald", &["false"]),
    ("management.enable_queue_totals", &["false"]),
    ("proxy_protocol", &["false"]),
    ("queue_types.classic.enabled", &["true"]),
    ("queue_types.quorum.enabled", &["true"]),
    ("quorum_queue.initial_cluster_size", &["1"]),
    ("reverse_dns_lookups", &["false"]),
];

/// Whether a key that is not supported was set to what is done anyway.
pub(super) fn asks_for_nothing(name: &Name, value: &str) -> bool {
    HARMLESS
        .iter()
        .any(|(pattern, values)| pattern_matches(pattern, &name.0) && values.contains(&value))
}

/// All lines of the file, each with the section it is in.
pub(super) fn patterns() -> impl Iterator<Item = (Standing, &'static str)> {
    let mut section = Standing::Ignored;
    KNOWN_KEYS.lines().filter_map(move |line| {
        match line {
            "[ignored]" => section = Standing::Ignored,
            "[unsupported]" => section = Standing::Unsupported,
            _ if line.is_empty() || line.starts_with('#') => {}
            pattern => return Some((section, pattern)),
        }
        None
    })
}

/// Whether `words` fit a pattern of the file.
fn matches(pattern: &str, words: &[String]) -> bool {
    match pattern.strip_suffix(".@tls") {
        None => pattern_matches(pattern, words),
        Some(prefix) => {
            let prefix_len = prefix.split('.').count();
            prefix_len < words.len()
                && pattern_matches(prefix, &words[..prefix_len])
                && TLS_OPTIONS.iter().any(|option| pattern_matches(option, &words[prefix_len..]))
        }
    }
}

/// Whether `words` are those of `pattern`, in which a word of `$name` stands for any.
pub(super) fn pattern_matches(pattern: &str, words: &[String]) -> bool {
    let mut expected = pattern.split('.');
    let fit = words.iter().all(|word| {
        expected.next().is_some_and(|expected| expected.starts_with('$') || expected == word)
    });
    fit && expected.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, expected: Option<Standing>) {
        assert_eq!(standing(&Name::parse(key).unwrap()), expected, "{key}");
    }

    #[test]
    fn keys_of_rabbitmq_are_known() {
        check("num_acceptors.tcp", Some(Standing::Ignored));
        check("erlang.K", Some(Standing::Ignored));
        check("listeners.ssl.default", Some(Standing::Unsupported));
        check("ssl_options.versions.1", Some(Standing::Unsupported));
        check("auth_ldap.ssl_options.cacertfile", Some(Standing::Unsupported));
        check("auth_oauth2.oauth_providers.x.https.verify", Some(Standing::Unsupported));
        check("cluster_formation.classic_config.nodes.1", Some(Standing::Unsupported));
    }

    #[test]
    fn what_is_done_anyway_is_no_wish() {
        let nothing = |key: &str, value: &str| {
            assert_eq!(standing(&Name::parse(key).unwrap()), Some(Standing::Unsupported), "{key}");
            asks_for_nothing(&Name::parse(key).unwrap(), value)
        };
        assert!(nothing("auth_backends.1", "internal"));
        assert!(!nothing("auth_backends.1", "ldap"));
        assert!(nothing("proxy_protocol", "false"));
        assert!(!nothing("proxy_protocol", "true"));
        for (pattern, values) in HARMLESS {
            assert!(nothing(&pattern.replace('$', ""), values[0]), "{pattern}");
        }
    }

    #[test]
    fn others_are_not() {
        check("nonsense", None);
        check("listeners", None);
        check("listeners.ssl.default.more", None);
        check("ssl_options", None);
        check("ssl_options.cacertfil", None);
        check("@tls", None);
    }
}
