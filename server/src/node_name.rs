//! The name of the node, `rabbit@<short hostname>`: a label that tools expect, never part of a path.

/// Environment variable that replaces the name.
pub const NODE_NAME_VARIABLE: &str = "RABBITMQ_NODENAME";

/// The node name of this process's surroundings.
pub fn node_name() -> String {
    let uname = rustix::system::uname();
    let hostname = uname.nodename().to_string_lossy();
    let wanted = std::env::var(NODE_NAME_VARIABLE).unwrap_or_default();
    compose(&wanted, &hostname)
}

/// `wanted` completed by the host where it names none; `rabbit` where it is empty.
pub fn compose(wanted: &str, hostname: &str) -> String {
    let short = hostname.split('.').next().filter(|host| !host.is_empty()).unwrap_or("localhost");
    match wanted.split_once('@') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() => wanted.to_owned(),
        Some((name, _)) if !name.is_empty() => format!("{name}@{short}"),
        Some(_) => format!("rabbit@{short}"),
        None if wanted.is_empty() => format!("rabbit@{short}"),
        None => format!("{wanted}@{short}"),
    }
}

#[cfg(test)]
mod tests {
    use super::compose;

    #[test]
    fn the_parts_that_are_missing_are_filled_in() {
        assert_eq!(compose("", "box.example.org"), "rabbit@box");
        assert_eq!(compose("", ""), "rabbit@localhost");
        assert_eq!(compose("hare", "box"), "hare@box");
        assert_eq!(compose("hare@", "box"), "hare@box");
        assert_eq!(compose("hare@far", "box"), "hare@far");
        assert_eq!(compose("@far", "box"), "rabbit@box");
    }
}
