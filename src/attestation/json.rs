//! JSON in which no key stands twice, at any depth; serde's own values keep the last and say nothing.
//!
//! Layer 1 (documents): pure. Two readers that choose differently among two values of one key would read two
//! statements under one signature. Must never keep one of two.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value whose objects have each key once. Depth is bounded by serde_json.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Once, E> {
                Ok(Once(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Once, E> {
                Ok(Once(Value::Bool(value)))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Once, E> {
                Number::from_f64(value).map(|number| Once(number.into())).ok_or_else(|| E::custom("a number that is none"))
            }

            fn visit_str<E>(self, value: &str) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_string<E>(self, value: String) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Once, A::Error> {
                let mut values = Vec::new();
                while let Some(Once(value)) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Once(values.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut members = Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    let Once(value) = map.next_value()?;
                    if members.contains_key(&key) {
                        return Err(A::Error::custom(format!("the key `{}` is there twice", shown(&key))));
                    }
                    members.insert(key, value);
                }
                Ok(Once(members.into()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Reads JSON; the error says where, and holds no control character.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice::<Once>(bytes) {
        Ok(Once(value)) => Ok(value),
        Err(error) => Err(shown(&error.to_string())),
    }
}

/// A text from outside as it may be printed: escaped, and not too long.
pub(super) fn shown(text: &str) -> String {
    crate::text::shown(text, 200)
}
