//! Names the broker makes up, numbered in the order they appear, so that recordings compare.

/// `$gen1` for the first `amq.gen-...` seen, `$ctag2` for the second consumer tag, and so on.
#[derive(Default)]
pub(crate) struct Names {
    known: Vec<(String, String)>, // (as the broker wrote it, our word for it)
}

/// What made-up names begin with, our word, and how many characters RabbitMQ adds where it is fixed.
const KINDS: [(&str, &str, Option<usize>); 4] = [
    ("cluster_name=S:", "$cluster", None),
    ("amq.gen-", "$gen", Some(22)),
    ("amq.ctag-", "$ctag", Some(22)),
    ("amq.rabbitmq.reply-to.", "$reply", None),
];

impl Names {
    /// Puts the broker's names where a step says `$gen1`.
    pub(crate) fn fill_in(&self, step: &str) -> String {
        let mut text = step.to_owned();
        // The last first, so that `$gen1` does not eat the start of `$gen10`.
        for (name, word) in self.known.iter().rev() {
            text = text.replace(word.as_str(), name);
        }
        text
    }

    /// Puts `$gen1` where the broker wrote its name.
    pub(crate) fn normalise(&mut self, line: &str) -> String {
        let mut text = line.to_owned();
        for (prefix, word, len) in KINDS {
            let mut from = 0;
            while let Some(at) = text[from..].find(prefix).map(|at| from + at) {
                let tail = &text[at + prefix.len()..];
                let end = tail.find(|c: char| !c.is_ascii_alphanumeric() && !"+/=._-@".contains(c));
                let tail_len = end.unwrap_or(tail.len());
                from = at + prefix.len();
                if tail_len == 0 || len.is_some_and(|len| len != tail_len) {
                    continue;
                }
                let name = text[at..at + prefix.len() + tail_len].to_owned();
                let word = self.word_for(&name, word);
                text = text.replacen(&name, &word, 1);
                from = at + word.len();
            }
        }
        text
    }

    fn word_for(&mut self, name: &str, kind: &str) -> String {
        if let Some((_, word)) = self.known.iter().find(|(known, _)| known == name) {
            return word.clone();
        }
        let number = self.known.iter().filter(|(_, word)| word.starts_with(kind)).count() + 1;
        let word = format!("{kind}{number}");
        self.known.push((name.to_owned(), word.clone()));
        word
    }
}
