//! JSON of other people, read so that none of it can be too deep.
//!
//! Anybody who may create an object can nest lists in it some thousand deep where
//! its schema keeps unknown fields. A parser that gives up at a depth gives up on the
//! whole list or watch that the object stands in, so that one object would blind every
//! agent. Here what is too deep reads as `null`, and is skipped without recursion.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// No field that is read lies deeper. What carries an object adds a few levels, and
/// `serde_json` ends at 128.
const DEEPEST: usize = 32;

/// Reads a value as deep as anything in it is read, without `managedFields`, which are
/// often longer than the rest.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Level(DEEPEST).deserialize(deserializer)
}

/// How many levels are still read.
#[derive(Clone, Copy)]
struct Level(usize);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.0 == 0 {
            deserializer.deserialize_ignored_any(IgnoredAny)?;
            return Ok(Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
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
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self(self.0 - 1))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if name == "managedFields" {
                entries.next_value::<IgnoredAny>()?;
            } else {
                fields.insert(name, entries.next_value_seed(Self(self.0 - 1))?);
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Value {
        read(&mut serde_json::Deserializer::from_str(text)).unwrap()
    }

    #[test]
    fn what_objects_consist_of_is_read_as_it_is() {
        let value = json!({
            "a": [1, -1, 1.5, u64::MAX, true, null, "text", "esc\"aped"],
            "b": {"c": {"d": []}},
        });
        assert_eq!(parsed(&value.to_string()), value);
    }

    #[test]
    fn what_is_too_deep_is_null_and_its_neighbours_are_not() {
        let depth = 10_000;
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let value = parsed(&format!("{{\"deep\": {deep}, \"next\": [7]}}"));
        assert_eq!(value["next"], json!([7]));
        let levels = std::iter::successors(Some(&value["deep"]), |value| value.get(0));
        assert_eq!(levels.count(), DEEPEST);
    }

    #[test]
    fn managed_fields_are_skipped() {
        let value = parsed(r#"{"metadata": {"name": "a", "managedFields": [{"f": {}}]}}"#);
        assert_eq!(value, json!({"metadata": {"name": "a"}}));
    }
}
