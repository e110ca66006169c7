//! Text is held in views inside the engine and in plain strings outside of it.
//!
//! Grouping, joining and comparing short texts such as a sensor's name takes about two thirds of the time in views. Files,
//! catalogs and answers speak of plain strings, which every reader of Arrow knows.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, ListArray, RecordBatch, RecordBatchOptions, StringArray, UnionArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, not_impl_err};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_functions_json::{JSON_UNION_DATA_TYPE, JsonUnionEncoder, JsonUnionValue};

/// The schema with text in views.
pub(super) fn inside(schema: &Schema) -> SchemaRef {
    with_types(schema, |data_type| match data_type {
        DataType::Utf8 => Some(DataType::Utf8View),
        _ => None,
    })
}

/// The schema with text in plain strings, bytes likewise, and what a JSON column holds (`metrics->'sparc'`) as JSON.
pub(super) fn outside(schema: &Schema) -> SchemaRef {
    with_types(schema, |data_type| match data_type {
        DataType::Utf8View => Some(DataType::Utf8),
        DataType::BinaryView => Some(DataType::Binary),
        union @ DataType::Union(..) if *union == *JSON_UNION_DATA_TYPE => Some(DataType::Utf8),
        _ => None,
    })
}

fn with_types(schema: &Schema, to: fn(&DataType) -> Option<DataType>) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| with_type(field, to)).collect::<Vec<_>>();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn with_type(field: &FieldRef, to: fn(&DataType) -> Option<DataType>) -> FieldRef {
    match replaced(field.data_type(), to) {
        Cow::Borrowed(_) => Arc::clone(field),
        Cow::Owned(data_type) => {
            // A member that is not there is no text.
            let is_nullable = field.is_nullable() || matches!(field.data_type(), DataType::Union(..));
            Arc::new(Field::clone(field).with_data_type(data_type).with_nullable(is_nullable))
        }
    }
}

/// The type with every part of it replaced that `to` knows.
fn replaced(data_type: &DataType, to: fn(&DataType) -> Option<DataType>) -> Cow<'_, DataType> {
    if let Some(other) = to(data_type) {
        return Cow::Owned(other);
    }
    let other = match data_type {
        DataType::List(item) => DataType::List(with_type(item, to)),
        DataType::LargeList(item) => DataType::LargeList(with_type(item, to)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(with_type(item, to), *length),
        DataType::Map(entries, sorted) => DataType::Map(with_type(entries, to), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| with_type(field, to)).collect()),
        DataType::Dictionary(keys, values) => {
            DataType::Dictionary(keys.clone(), Box::new(replaced(values, to).into_owned()))
        }
        _ => return Cow::Borrowed(data_type),
    };
    if other == *data_type { Cow::Borrowed(data_type) } else { Cow::Owned(other) }
}

/// The batch under a schema of the same columns, of these or the other types of text.
pub(super) fn retyped(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let typed = batch.columns().iter().zip(schema.fields()).map(|(column, field)| match json_texts(column) {
        Some(texts) => cast(&texts, field.data_type()),
        None => cast(column, field.data_type()),
    });
    let columns = typed.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// Members of JSON documents, each of whatever type it has, as JSON, and lists of such; `None` for any other column.
fn json_texts(column: &ArrayRef) -> Option<ArrayRef> {
    if let Some(lists) = column.as_list_opt::<i32>() {
        let texts = json_texts(lists.values())?;
        let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
        return Some(Arc::new(ListArray::new(item, lists.offsets().clone(), texts, lists.nulls().cloned())));
    }
    let union = column.as_any().downcast_ref::<UnionArray>()?;
    let members = JsonUnionEncoder::from_union(union.clone())?;
    let texts = (0..members.len()).map(|row| match members.get_value(row) {
        JsonUnionValue::JsonNull => None,
        JsonUnionValue::Bool(value) => Some(value.to_string()),
        JsonUnionValue::Int(value) => Some(value.to_string()),
        JsonUnionValue::Float(value) => Some(serde_json::Value::from(value).to_string()),
        JsonUnionValue::Str(text) => Some(serde_json::Value::from(text).to_string()),
        JsonUnionValue::Array(json) | JsonUnionValue::Object(json) => Some(json.to_owned()),
    });
    Some(Arc::new(texts.collect::<StringArray>()))
}

/// What a catalog says of a table. It cannot be read.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) table: Arc<dyn TableProvider>,
    /// The table's, with plain strings.
    pub(super) schema: SchemaRef,
}

impl Described {
    pub(super) fn new(table: Arc<dyn TableProvider>) -> Self {
        Self { schema: outside(&table.schema()), table }
    }
}

#[async_trait]
impl TableProvider for Described {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        self.table.table_type()
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.table.get_table_definition()
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        not_impl_err!("a table's description has no rows")
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn texts_change_wherever_they_are_and_nothing_else_does() {
        let list = |of| DataType::List(Arc::new(Field::new("item", of, true)));
        let schema = |text: DataType| {
            let fields = vec![
                Field::new("a", text.clone(), false).with_metadata([("comment".to_owned(), "a".to_owned())].into()),
                Field::new("b", DataType::Int32, true),
                Field::new("c", list(text.clone()), true),
                Field::new("d", DataType::Struct(vec![Field::new("e", list(list(text)), true)].into()), true),
                Field::new("f", list(DataType::Int32), true),
            ];
            Arc::new(Schema::new_with_metadata(fields, [("volant.version".to_owned(), "1".to_owned())].into()))
        };
        assert_eq!(inside(&schema(DataType::Utf8)), schema(DataType::Utf8View));
        assert_eq!(outside(&schema(DataType::Utf8View)), schema(DataType::Utf8));
    }

    #[test]
    fn values_stay_the_same_there_and_back() {
        let texts = StringArray::from(vec![Some("racket"), None, Some("longer than twelve bytes")]);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None, Some(vec![])]);
        let batch = RecordBatch::try_from_iter([
            ("text", Arc::new(texts) as _),
            ("list", Arc::new(lists) as _),
            ("number", Arc::new(Int32Array::from(vec![1, 2, 3])) as _),
        ])
        .unwrap();
        let views = retyped(&batch, &inside(&batch.schema())).unwrap();
        assert_eq!(*views.schema().field(0).data_type(), DataType::Utf8View);
        assert_eq!(retyped(&views, &outside(&views.schema())).unwrap(), batch);
    }
}
