//! Names for what differs from run to run, in order of appearance: the same thing always has the same name, so that one
//! id in the place of another is a difference.

use serde_json::Value;

/// What has been named in one script.
#[derive(Default)]
pub(super) struct Names {
    /// Texts that the script itself has a name for, such as tokens.
    called: Vec<(String, String)>,
    epochs: Vec<String>,
    /// Of the events that the script knows. The hub publishes numbers of its own each second, so that offsets depend on
    /// the time between requests, and only their order can be told.
    offsets: Vec<u64>,
    words: Vec<(&'static str, Vec<String>)>,
    hides_times: bool,
}

impl Names {
    /// Shows `text` as `name`.
    pub(super) fn call(&mut self, text: &str, name: &str) {
        self.called.push((text.to_owned(), name.to_owned()));
        self.called.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }

    /// Shows no times from now on.
    pub(super) fn hide_times(&mut self) {
        self.hides_times = true;
    }

    /// Notes the epochs and offsets of what the hub said.
    pub(super) fn learn(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.learn(item)),
            Value::Object(members) => {
                for (name, value) in members {
                    match (&**name, value) {
                        ("offset", value) => self.learn_offset(value.as_u64()),
                        ("offsets", Value::Array(all)) => {
                            all.iter().for_each(|one| self.learn_offset(one.as_u64()));
                        }
                        (_, Value::String(text)) => self.learn_epoch(text),
                        (_, value) => self.learn(value),
                    }
                }
                // Where events are told of without their offsets.
                for (told, at) in [("accepted", "position"), ("last_received", "last")] {
                    if members.contains_key(told) {
                        self.learn_offset(members.get(at).and_then(offset));
                    }
                }
            }
            _ => {}
        }
    }

    /// Notes the epoch of a text that is a position.
    pub(super) fn learn_epoch(&mut self, text: &str) {
        // Those of the script are short.
        if let Some((epoch, offset)) = text.split_once(':')
            && (5..=16).contains(&epoch.len())
            && epoch.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !offset.is_empty()
            && offset.bytes().all(|byte| byte.is_ascii_digit())
            && !self.epochs.iter().any(|known| known == epoch)
        {
            self.epochs.push(epoch.to_owned());
        }
    }

    fn learn_offset(&mut self, offset: Option<u64>) {
        if let Some(offset) = offset.filter(|offset| !self.offsets.contains(offset)) {
            self.offsets.push(offset);
        }
    }

    /// `text` with names in it.
    pub(super) fn show(&mut self, text: &str) -> String {
        let text = self
            .called
            .iter()
            .fold(text.to_owned(), |text, (called, name)| text.replace(called, name));
        let (mut shown, mut rest) = (String::new(), &*text);
        let mut lists_offsets = false;
        while let Some(next) = rest.chars().next() {
            if !is_of_word(next) {
                lists_offsets &= next != ']';
                lists_offsets |= next == '[' && shown.ends_with("\"offsets\":");
                shown.push(next);
                rest = &rest[next.len_utf8()..];
                continue;
            }
            let end = rest.find(|next| !is_of_word(next)).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            let (name, taken) = if let Some(number) = position(behind)
                && let Some(epoch) = self.epochs.iter().position(|known| known == word)
            {
                let offset = self.show_offset(number.parse().unwrap());
                (format!("<epoch {}>:{offset}", epoch + 1), 1 + number.len())
            } else if let Some(port) = rest.strip_prefix("127.0.0.1:").map(digits)
                && !port.is_empty()
            {
                (self.word("address", port), "127.0.0.1:".len() + port.len() - end)
            } else if self.hides_times
                && let Some(length) = time(rest)
            {
                ("<time>".to_owned(), length - end)
            } else if shown.ends_with("\"offset\":") || lists_offsets {
                (self.known_offset(word), 0)
            } else if shown.ends_with("\"after_ms\":") || shown.ends_with("retry: ") {
                ("<delay>".to_owned(), 0)
            } else if shown.ends_with("\"bytes\":") {
                ("<bytes>".to_owned(), 0) // an offset of more digits has more
            } else {
                (kind(word).map_or_else(|| word.to_owned(), |kind| self.word(kind, word)), 0)
            };
            shown.push_str(&name);
            rest = &behind[taken..];
        }
        shown
    }

    /// Where an offset lies among those of known events.
    fn show_offset(&self, offset: u64) -> String {
        let newest = self.offsets.iter().copied().max().unwrap_or(0);
        let oldest = self.offsets.iter().copied().min().unwrap_or(0);
        let is = |wanted| self.offsets.iter().position(|known| *known == wanted);
        match (is(offset), offset.checked_sub(1).and_then(is)) {
            _ if offset >= newest => "<newest>".to_owned(),
            _ if offset == 0 => "0".to_owned(),
            // The hub may have been first.
            _ if offset <= oldest => "<oldest>".to_owned(),
            (Some(at), _) => format!("<offset {}>", at + 1),
            (None, Some(at)) => format!("<behind offset {}>", at + 1),
            (None, None) => "<between>".to_owned(),
        }
    }

    fn known_offset(&self, text: &str) -> String {
        let at = text
            .parse()
            .ok()
            .and_then(|offset: u64| self.offsets.iter().position(|known| *known == offset));
        at.map_or_else(|| text.to_owned(), |at| format!("<offset {}>", at + 1))
    }

    fn word(&mut self, kind: &'static str, word: &str) -> String {
        let at = self.words.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
            self.words.push((kind, Vec::new()));
            self.words.len() - 1
        });
        let words = &mut self.words[at].1;
        let number = words.iter().position(|known| known == word).unwrap_or_else(|| {
            words.push(word.to_owned());
            words.len() - 1
        });
        format!("<{kind} {}>", number + 1)
    }
}

fn is_of_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || char == '-'
}

/// The digits of a position behind its epoch.
fn position(behind: &str) -> Option<&str> {
    behind.strip_prefix(':').map(digits).filter(|digits| !digits.is_empty())
}

/// How long the time is that a text begins with.
fn time(text: &str) -> Option<usize> {
    let is_time = |text: &str| pulsehub::time::has_rfc3339_shape(text);
    let end = text.find('Z')? + 1;
    is_time(&text[..end]).then_some(end)
}

fn digits(text: &str) -> &str {
    &text[..text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len())]
}

fn offset(position: &Value) -> Option<u64> {
    position.as_str()?.split_once(':')?.1.parse().ok()
}

/// What kind of random word this is, told by its shape.
fn kind(word: &str) -> Option<&'static str> {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = word.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    match word.len() {
        36 if lengths == [8, 4, 4, 4, 12] && parts.iter().all(|part| is_hex(part)) => Some("uuid"),
        _ if word.starts_with("phk_") && word.len() > 40 => Some("key"),
        _ if word.starts_with("phs_") && word.len() > 40 => Some("ticket of a stream"),
        _ if word.starts_with("eyJ") => Some("part of a token"),
        43 => Some("secret"),
        16 if is_hex(word) => Some("hex"),
        _ => None,
    }
}

#[test]
fn one_in_the_place_of_another_is_a_difference() {
    let mut names = Names::default();
    let told = r#"{"position":"0a1b2c3d:7","accepted":2,"offsets":[5,7]}"#;
    names.learn(&serde_json::from_str(told).unwrap());
    let shown =
        r#"{"position":"<epoch 1>:<newest>","accepted":2,"offsets":[<offset 1>,<offset 2>]}"#;
    assert_eq!(names.show(told), shown);
    assert_eq!(
        names.show("0a1b2c3d:5 0a1b2c3d:6 1:2"),
        "<epoch 1>:<oldest> <epoch 1>:<behind offset 1> 1:2"
    );
    let ids = ["018f6b1e-0000-7000-8000-000000000001", "018f6b1e-0000-7000-8000-000000000002"];
    assert_eq!(
        names.show(&format!("{} {} {}", ids[0], ids[1], ids[0])),
        "<uuid 1> <uuid 2> <uuid 1>"
    );
    assert_eq!(
        names.show("127.0.0.1:4711, 127.0.0.1:80 at 12:00:00"),
        "<address 1>, <address 2> at 12:00:00"
    );
}
