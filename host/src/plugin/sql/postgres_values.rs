//! Values on their way to PostgreSQL and back: parameters go as text that the server converts, columns come in its binary form.

use super::postgres_text::{self as text, Malformed};
use crate::plugin::bindings::sql::Value;
use bytes::BytesMut;
use std::error::Error;
use std::fmt;
use tokio_postgres::Row;

use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

/// A parameter of a statement. What it holds is never shown.
pub(super) struct Parameter<'a>(pub(super) &'a Value);

impl Parameter<'_> {
    /// What the server is told of its type. Of text it infers it, as of a literal.
    pub(super) fn declared(&self) -> Type {
        match self.0 {
            Value::Bytes(_) => Type::BYTEA,
            _ => Type::UNKNOWN,
        }
    }
}

impl fmt::Debug for Parameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl ToSql for Parameter<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Value::S64(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Value::F64(value) => out.extend_from_slice(text::float(*value).as_bytes()),
            Value::Text(value) => out.extend_from_slice(value.as_bytes()),
            Value::Bytes(value) => out.extend_from_slice(value),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self.0 {
            Value::Bytes(_) => Format::Binary,
            _ => Format::Text,
        }
    }

    to_sql_checked!();
}

/// The values of a row; the error is for who wrote the statement.
pub(super) fn values(row: &Row) -> Result<Vec<Value>, String> {
    row.columns()
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let raw: Option<Raw<'_>> = row.try_get(index).map_err(|e| e.to_string())?;
            let Some(Raw(bytes)) = raw else { return Ok(Value::Null) };
            value(column.type_(), bytes).map_err(|fault| {
                let (name, kind) = (column.name(), column.type_().name());
                match fault {
                    Malformed::Unknown => format!(
                        "column `{name}` is of type {kind}, which has no form here: cast it to text in the statement, `{name}::text`"
                    ),
                    Malformed::Wrong => format!("column `{name}` of type {kind} came in a form that is not known here"),
                }
            })
        })
        .collect()
}

/// The bytes of a column as they came.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn value(ty: &Type, raw: &[u8]) -> Result<Value, Malformed> {
    if let Kind::Domain(base) = ty.kind() {
        return value(base, raw);
    }
    Ok(match *ty {
        Type::BOOL => Value::Boolean(text::fixed::<1>(raw)? != [0]),
        Type::INT2 => Value::S64(i16::from_be_bytes(text::fixed(raw)?).into()),
        Type::INT4 => Value::S64(i32::from_be_bytes(text::fixed(raw)?).into()),
        Type::INT8 => Value::S64(i64::from_be_bytes(text::fixed(raw)?)),
        Type::OID => Value::S64(u32::from_be_bytes(text::fixed(raw)?).into()),
        Type::FLOAT4 => Value::F64(f32::from_be_bytes(text::fixed(raw)?).into()),
        Type::FLOAT8 => Value::F64(f64::from_be_bytes(text::fixed(raw)?)),
        Type::BYTEA => Value::Bytes(raw.to_vec()),
        _ => Value::Text(text::text(ty, raw)?),
    })
}
