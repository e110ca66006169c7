//! PostgreSQL's tables and functions about tables and functions.

use std::sync::Arc;

use arrow::array::{AsArray as _, Int32Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility, create_udf};
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::setup_pg_catalog;
use pgwire::api::Type;

use super::super::engine::CATALOG;
use super::dialect::VERSION_TEXT;

/// Adds them to an engine of their own.
pub(in crate::query) fn add_catalog(context: &SessionContext) -> Result<(), DataFusionError> {
    setup_pg_catalog(context, CATALOG, EmptyContextProvider).map_err(|error| *error)?;
    let answer = Arc::new(|_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::from(VERSION_TEXT))));
    context.register_udf(create_udf("version", Vec::new(), DataType::Utf8, Volatility::Stable, answer));
    let number = Arc::new(|arguments: &[ColumnarValue]| {
        let names = ColumnarValue::values_to_arrays(arguments)?;
        let names: &StringArray = names[0].as_string();
        let numbers = names.iter().map(|name| TYPES.iter().find(|known| Some(known.name()) == name));
        let numbers: Int32Array = numbers.map(|known| known.map(|known| known.oid() as i32)).collect();
        Ok(ColumnarValue::Array(Arc::new(numbers)))
    });
    let text = vec![DataType::Utf8];
    context.register_udf(create_udf("to_regtype", text, DataType::Int32, Volatility::Stable, number));
    for name in ["pg_collation_is_visible", "pg_function_is_visible", "pg_type_is_visible"] {
        let yes = Arc::new(|_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::from(true))));
        let any = Signature::any(1, Volatility::Stable);
        let udf = SimpleScalarUDF::new_with_signature(name, any, DataType::Boolean, yes);
        context.register_udf(ScalarUDF::new_from_impl(udf));
    }
    for (name, arguments) in NOTHING_SUCH {
        let none = Arc::new(|_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))));
        let udf = SimpleScalarUDF::new_with_signature(
            name,
            arguments.map_or(Signature::variadic_any(Volatility::Stable), |n| Signature::any(n, Volatility::Stable)),
            DataType::Utf8,
            none,
        );
        context.register_udf(ScalarUDF::new_from_impl(udf));
    }
    Ok(())
}

/// Functions about sequences, indexes and descriptions, of which there are none: they answer NULL. With their arguments.
const NOTHING_SUCH: [(&str, Option<usize>); 5] = [
    ("pg_get_serial_sequence", Some(2)),
    ("pg_get_indexdef", None),
    ("json_build_object", None),
    ("col_description", Some(2)),
    ("obj_description", None),
];

/// The types that answers have.
const TYPES: [Type; 13] = [
    Type::BOOL,
    Type::BYTEA,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::NUMERIC,
    Type::TEXT,
    Type::VARCHAR,
    Type::DATE,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
];
