//! Lists that clients send as text: `{wrist,racket}`.
//!
//! Drivers that do not know a placeholder's type leave the text of a list to the server, which knows from the statement that a
//! list is meant: in `= ANY($1)` and in `$1::text[]`.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, ListBuilder, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// Name of the function that reads them, in statements put for the engine.
pub(super) const NAME: &str = "list_from_text";

/// The function: text in PostgreSQL's form becomes a list of texts, a list stays.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ListFromText {
    signature: Signature,
}

impl ListFromText {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ListFromText {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(match &arguments[0] {
            list @ (DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)) => list.clone(),
            _ => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let given = ColumnarValue::values_to_arrays(&arguments.args)?.swap_remove(0);
        if given.data_type() == arguments.return_field.data_type() {
            return Ok(ColumnarValue::Array(given));
        }
        let texts = cast(&given, &DataType::Utf8)?;
        let mut lists = ListBuilder::new(StringBuilder::new());
        for text in texts.as_string::<i32>() {
            match text {
                Some(text) => members(text).map(|members| lists.append_value(members)).ok_or_else(|| {
                    DataFusionError::Execution(format!("malformed array literal: {text:?}, expected such as {{a,b}}"))
                })?,
                None => lists.append_null(),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    }
}

/// The members of a list of one dimension as PostgreSQL writes it; `None` if it is none.
fn members(text: &str) -> Option<Vec<Option<String>>> {
    let inside = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut members = Vec::new();
    if inside.trim().is_empty() {
        return Some(members);
    }
    let mut letters = inside.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let quoted = letters.next_if_eq(&'"').is_some();
        let mut member = String::new();
        let mut ended = false;
        while let Some(letter) = letters.peek().copied() {
            match letter {
                '"' if quoted => {
                    letters.next();
                    ended = true;
                    break;
                }
                ',' if !quoted => break,
                // A list in a list, among others.
                '{' | '}' | '"' if !quoted => return None,
                '\\' => {
                    letters.next();
                    member.push(letters.next()?);
                }
                _ => {
                    letters.next();
                    member.push(letter);
                }
            }
        }
        if quoted {
            if !ended {
                return None;
            }
            members.push(Some(member));
            while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        } else {
            let member = member.trim_end();
            if member.is_empty() {
                return None;
            }
            members.push((!member.eq_ignore_ascii_case("null")).then(|| member.to_owned()));
        }
        match letters.next() {
            None => return Some(members),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_postgresql_writes_them() {
        let list = |members: &[Option<&str>]| Some(members.iter().map(|m| m.map(str::to_owned)).collect::<Vec<_>>());
        assert_eq!(members("{wrist,racket}"), list(&[Some("wrist"), Some("racket")]));
        assert_eq!(members(" { 1 , 2.5 } "), list(&[Some("1"), Some("2.5")]));
        assert_eq!(members("{}"), list(&[]));
        assert_eq!(
            members(r#"{"a,\"b\\","",NULL,"NULL",two words,a\,b}"#),
            list(&[Some("a,\"b\\"), Some(""), None, Some("NULL"), Some("two words"), Some("a,b")])
        );
        for wrong in ["", "wrist", "{a,}", "{,a}", "{{a},{b}}", "{\"a}", "{a\"b\"}", "{\"a\"b}", "{a", "{a\\}"] {
            assert_eq!(members(wrong), None, "{wrong}");
        }
    }
}
