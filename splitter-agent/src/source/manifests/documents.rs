//! Splits the text of a manifest into documents.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Options, Spanned, UserMessageFormatter};

use crate::objects::inert;

/// Deeper nesting is refused. Schemas of custom resources, the deepest objects there are,
/// reach some 50.
const DEPTH_LIMIT: usize = 100;
/// More nodes are refused, whether written out or repeated by aliases: a few times what
/// fits a file of the largest size as a person or `kubectl` writes it.
const NODE_LIMIT: usize = 8_000_000;
/// Nodes that aliases may repeat, in all.
const REPLAY_LIMIT: usize = 100_000;
/// More text in values than this is refused.
const TEXT_LIMIT: usize = 128 * 1024 * 1024;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// YAML, one or many documents.
    Yaml,
    /// JSON, one or many values after each other.
    Json,
}

/// A document that is not empty.
#[derive(Debug)]
pub(super) struct Document {
    /// The line where it begins, from 1.
    pub(super) line: u64,
    /// Its content.
    pub(super) value: Value,
}

/// Why a text is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Where, if that is known: line and column, from 1.
    pub(super) position: Option<(u64, u64)>,
    /// What is wrong.
    pub(super) message: String,
}

/// Every document of a text; those that are empty or only comment are left out.
pub(super) fn parse(bytes: &[u8], syntax: Syntax) -> Result<Vec<Document>, SyntaxError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = position(&bytes[..error.valid_up_to()]);
        SyntaxError {
            position: Some((line, column)),
            message: "it is not UTF-8 text".to_owned(),
        }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let documents = match syntax {
        Syntax::Yaml => parse_yaml(text),
        Syntax::Json => parse_json(text),
    }?;
    // Such a number is 0 as soon as it has been read. In a comment it does no harm, so there must
    // be a 0 that it may have become.
    if documents
        .iter()
        .any(|document| has_float_zero(&document.value))
        && let Some(number) = vanishing(text)
    {
        let start = number.as_ptr() as usize - text.as_ptr() as usize;
        return Err(SyntaxError {
            position: Some(position(&text.as_bytes()[..start])),
            message: format!("{} is too small a number to be told from 0", inert(number)),
        });
    }
    Ok(documents)
}

/// The first number that is not 0 as it is written, and is as a float.
fn vanishing(text: &str) -> Option<&str> {
    let separators = |character: char| character.is_whitespace() || ",:[]{}".contains(character);
    text.split(separators).find(|word| {
        let is_number =
            word.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
        let may_be_tiny = || word.len() > 300 || word.contains("e-") || word.contains("E-");
        is_number
            && may_be_tiny()
            && word.parse() == Ok(0f64)
            && (word.split(['e', 'E']).next())
                .is_some_and(|digits| digits.contains(|digit| matches!(digit, '1'..='9')))
    })
}

/// Whether there is a 0 that was written with a point or an exponent.
fn has_float_zero(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64() && number.as_f64() == Some(0.0),
        Value::Array(items) => items.iter().any(has_float_zero),
        Value::Object(fields) => fields.values().any(has_float_zero),
        _ => false,
    }
}

fn parse_yaml(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let documents: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, yaml_options()).map_err(|error| {
            SyntaxError {
                position: error
                    .location()
                    .map(|location| (location.line(), location.column()))
                    .filter(|&(line, _)| line > 0),
                // The other formatter advises on how to call the library.
                message: bare(&error.render_with_formatter(&UserMessageFormatter)),
            }
        })?;
    Ok(documents
        .into_iter()
        .map(|document| Document {
            line: document.referenced.line(),
            value: document.value,
        })
        .collect())
}

/// Reads plain scalars as `kubectl` does, and repeated keys as the mistake that they are.
fn yaml_options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_LIMIT,
            max_events: 2 * NODE_LIMIT,
            max_nodes: NODE_LIMIT,
            max_documents: NODE_LIMIT,
            max_total_scalar_bytes: TEXT_LIMIT,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPLAY_LIMIT },
        duplicate_keys: DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        // As text it fails only the object that uses it for a number.
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

fn parse_json(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let mut documents = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Unrepeated>();
    let (mut line, mut counted) = (1, 0);
    loop {
        let rest = &text[values.byte_offset()..];
        let start = text.len() - rest.trim_ascii_start().len();
        line += newlines(&text.as_bytes()[counted..start]);
        counted = start;
        match values.next() {
            None => return Ok(documents),
            Some(Ok(Unrepeated(Value::Null))) => {}
            Some(Ok(Unrepeated(value))) => documents.push(Document { line, value }),
            Some(Err(error)) => {
                return Err(SyntaxError {
                    position: Some((error.line() as u64, error.column() as u64)),
                    message: bare(&error.to_string()),
                });
            }
        }
    }
}

/// JSON in which no object has a key twice, as in YAML: of two values, one would silently
/// count.
struct Unrepeated(Value);

impl<'de> Deserialize<'de> for Unrepeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnrepeatedVisitor).map(Self)
    }
}

struct UnrepeatedVisitor;

impl<'de> Visitor<'de> for UnrepeatedVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unrepeated(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                let key = inert(&key);
                return Err(A::Error::custom(format!(
                    "duplicate mapping key `{key}` is not allowed here"
                )));
            }
            let Unrepeated(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Line and column of what follows these bytes.
fn position(before: &[u8]) -> (u64, u64) {
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n');
    (newlines(before) + 1, column.count() as u64 + 1)
}

/// A parser's message without the position at its end, which is reported separately.
fn bare(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let is_position = |text: &str| {
        text.split([' ', ','])
            .all(|word| matches!(word, "" | "column") || word.parse::<u64>().is_ok())
    };
    match line.rsplit_once(" at line ") {
        Some((bare, position)) if is_position(position) => inert(bare).into_owned(),
        _ => inert(line).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use serde_json::json;

    use super::super::STACK_SIZE;
    use super::*;

    fn yaml(text: &str) -> Vec<Value> {
        let documents = parse(text.as_bytes(), Syntax::Yaml).expect("valid YAML");
        documents
            .into_iter()
            .map(|document| document.value)
            .collect()
    }

    fn refusal(text: &str) -> SyntaxError {
        parse(text.as_bytes(), Syntax::Yaml).expect_err("not valid")
    }

    #[test]
    fn documents_are_separated_and_empty_ones_left_out() {
        let text =
            "# first\n---\na: 1\n---\n# nothing\n---\n\n...\n---\nb: 2 # two\n...\n---\nnull\n";
        assert_eq!(yaml(text), [json!({"a": 1}), json!({"b": 2})]);
        assert!(yaml("").is_empty());
        assert!(yaml("# only a comment\n").is_empty());
        assert!(yaml("---\n---\n").is_empty());
    }

    #[test]
    fn each_document_knows_its_line() {
        let text = "# first\na: 1\n---\n\n# second\nb:\n  c: 2\n---\n{d: 3}\n";
        let documents = parse(text.as_bytes(), Syntax::Yaml).expect("valid YAML");
        let lines: Vec<_> = documents.iter().map(|document| document.line).collect();
        assert_eq!(lines, [2, 6, 9]);
    }

    #[test]
    fn byte_order_mark_and_windows_line_ends_are_no_content() {
        assert_eq!(
            yaml("\u{feff}a: x\r\nb: |\r\n  y\r\n---\r\nc: z\r\n"),
            [json!({"a": "x", "b": "y\n"}), json!({"c": "z"})]
        );
    }

    #[test]
    fn anchors_and_merge_keys_are_expanded() {
        assert_eq!(
            yaml("a: &x {n: 1}\nb: *x\nc: {<<: *x, m: 2}\n"),
            [json!({"a": {"n": 1}, "b": {"n": 1}, "c": {"n": 1, "m": 2}})]
        );
    }

    #[test]
    fn plain_scalars_mean_what_they_mean_to_kubectl() {
        assert_eq!(
            yaml("{a: 010, b: 500m, c: yes, d: 1.5, e: '1', f: 0x10, g: ~, h: 1e999, 80: i}"),
            [
                json!({"a": 8, "b": "500m", "c": true, "d": 1.5, "e": "1", "f": 16, "g": null,
                   "h": ".inf", "80": "i"})
            ]
        );
    }

    #[test]
    fn json_is_valid_in_a_yaml_file() {
        assert_eq!(
            yaml("{\n\t\"a\": [1, \"\\u00e9\\/\"],\n\t\"b\": {}\n}\n"),
            [json!({"a": [1, "é/"], "b": {}})]
        );
    }

    #[test]
    fn errors_say_where() {
        let error = refusal("a: 1\nb: [1, 2\nc: 3\n");
        assert!(
            error
                .position
                .is_some_and(|(line, _)| line == 2 || line == 3),
            "{error:?}"
        );
        assert_eq!(refusal("a: 1\n---\nb: 1\nb: 2\n").position, Some((4, 1)));
        assert!(refusal("a: 1\n\tb: 2\n").position.is_some());
        let error = parse(b"a: 1\nb: \xff\n", Syntax::Yaml).expect_err("not UTF-8");
        assert_eq!(error.position, Some((2, 4)));
    }

    #[test]
    fn error_messages_are_one_line_without_position() {
        for text in [
            "a: [1",
            "a: 1\na: 2",
            "a: *x",
            "'",
            "a: b: c",
            "%",
            "a: \"\\q\"",
        ] {
            let error = refusal(text);
            assert!(!error.message.is_empty() && !error.message.contains('\n'));
            assert!(!error.message.contains("line "), "{}", error.message);
        }
    }

    #[test]
    fn text_that_grows_when_read_is_refused() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{}", level - 1);
            laughs += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(", "));
        }
        refusal(&laughs);
        // Long text repeated: 8 MiB, 50 times.
        let long = "x".repeat(8 << 20);
        let repeated = vec!["*x"; 50].join(", ");
        refusal(&format!("a: &x \"{long}\"\nb: [{repeated}]\n"));
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_is_used_up() {
        let block = |item: &str| {
            (0..500)
                .map(|depth| format!("{}{item}\n", " ".repeat(depth)))
                .collect::<String>()
        };
        let texts = [
            "[".repeat(200),
            "[".repeat(10_000),
            "{a: ".repeat(10_000),
            block("- "),
            block("a:"),
        ];
        let parsing = thread::Builder::new().stack_size(STACK_SIZE);
        let parsing = parsing.spawn(move || texts.each_ref().map(|text| refusal(text)));
        parsing.expect("a thread").join().expect("refused");
    }

    #[test]
    fn ten_thousand_documents_are_not_too_many() {
        let text = "kind: Service\nmetadata: {name: x}\n---\n".repeat(10_000);
        assert_eq!(yaml(&text).len(), 10_000);
    }

    #[test]
    fn json_values_may_follow_each_other() {
        let text = "\u{feff}\n{\"a\": 1}\n\n{\"b\":\n2} null {\"c\": 3}\n";
        let documents = parse(text.as_bytes(), Syntax::Json).expect("valid JSON");
        let found: Vec<_> = documents
            .iter()
            .map(|d| (d.line, d.value.clone()))
            .collect();
        assert_eq!(
            found,
            [
                (2, json!({"a": 1})),
                (4, json!({"b": 2})),
                (5, json!({"c": 3}))
            ]
        );
    }

    #[test]
    fn messages_advise_authors_and_not_programmers() {
        let wanted = "duplicate mapping key `b` is not allowed here";
        assert_eq!(refusal("a: 1\nb: 1\nb: 2\n").message, wanted);
        let error = parse(b"[{\"b\": {}},\n {\"b\": 1, \"b\": 2}]", Syntax::Json);
        let error = error.expect_err("repeated");
        assert_eq!(error.message, wanted);
        assert_eq!(error.position.map(|position| position.0), Some(2));
    }

    #[test]
    fn messages_cannot_control_a_terminal() {
        for syntax in [Syntax::Yaml, Syntax::Json] {
            let text = "{\"\\u001b[2J\\u202e\": 1, \"\\u001b[2J\\u202e\": 2}";
            let message = parse(text.as_bytes(), syntax)
                .expect_err("repeated")
                .message;
            assert!(!message.contains(['\u{1b}', '\u{202e}']), "{message:?}");
        }
    }

    #[test]
    fn a_number_that_would_become_0_is_refused() {
        for number in [
            "1e-400",
            "-2.5E-999",
            ".1e-400",
            &format!("0.{}1", "0".repeat(400)),
        ] {
            for syntax in [Syntax::Yaml, Syntax::Json] {
                let text = format!("{{\"a\":\n {number}}}");
                if syntax == Syntax::Json && number.starts_with('.') {
                    continue;
                }
                let error = parse(text.as_bytes(), syntax).expect_err("too small");
                assert_eq!(error.position, Some((2, 2)), "{number}");
                assert!(error.message.starts_with(number), "{}", error.message);
            }
        }
        for harmless in [
            "a: 1e-300",
            "a: 0.0",
            "a: 0e-400",
            "a: '1e-400'",
            "a: 0 # 1e-400",
        ] {
            yaml(harmless);
        }
    }

    #[test]
    fn json_errors_say_where() {
        let error = parse(b"{\"a\": 1}\n{\"b\": }\n", Syntax::Json).expect_err("not JSON");
        assert_eq!(error.position.map(|p| p.0), Some(2));
        assert_eq!(error.message, "expected value");
    }
}
