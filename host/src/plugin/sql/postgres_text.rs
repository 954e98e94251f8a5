//! PostgreSQL's binary forms as the text that PostgreSQL itself writes.

use super::postgres_time as time;
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio_postgres::types::{Kind, Type};

/// Why there is no text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// A type that is not known here.
    Unknown,
    /// A known type in an unknown form.
    Wrong,
}

/// Exactly so many bytes.
pub(super) fn fixed<const N: usize>(raw: &[u8]) -> Result<[u8; N], Malformed> {
    raw.try_into().map_err(|_| Malformed::Wrong)
}

/// Reads from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Wrong)?;
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(fixed(self.take(2)?)?))
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(fixed(self.take(4)?)?))
    }
}

/// The text of a value that is neither null nor of a type with a form of its own.
pub(super) fn text(ty: &Type, raw: &[u8]) -> Result<String, Malformed> {
    match ty.kind() {
        Kind::Array(element) => return array(element, raw),
        Kind::Domain(base) => return text(base, raw),
        Kind::Enum(_) => return utf8(raw),
        _ => {}
    }
    match *ty {
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::XML | Type::UNKNOWN => utf8(raw),
        Type::CHAR => Ok(raw.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()),
        Type::VOID => Ok(String::new()),
        Type::BOOL => Ok(if fixed::<1>(raw)? == [0] { "f" } else { "t" }.to_owned()),
        Type::INT2 => Ok(i16::from_be_bytes(fixed(raw)?).to_string()),
        Type::INT4 => Ok(i32::from_be_bytes(fixed(raw)?).to_string()),
        Type::INT8 => Ok(i64::from_be_bytes(fixed(raw)?).to_string()),
        Type::OID => Ok(u32::from_be_bytes(fixed(raw)?).to_string()),
        Type::FLOAT4 => Ok(float_of(f32::from_be_bytes(fixed(raw)?))),
        Type::FLOAT8 => Ok(float(f64::from_be_bytes(fixed(raw)?))),
        Type::BYTEA => Ok(raw.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}"))),
        Type::JSONB => match raw {
            [1, json @ ..] => utf8(json),
            _ => Err(Malformed::Wrong),
        },
        Type::UUID => Ok(uuid::Uuid::from_bytes(fixed(raw)?).to_string()),
        Type::NUMERIC => numeric(raw),
        Type::DATE => Ok(time::date(i32::from_be_bytes(fixed(raw)?))),
        Type::TIME => Ok(time::time(i64::from_be_bytes(fixed(raw)?))),
        Type::TIMETZ => {
            let mut reader = Reader(raw);
            let micros = i64::from_be_bytes(fixed(reader.take(8)?)?);
            Ok(time::time(micros) + &time::zone(reader.i32()?))
        }
        Type::TIMESTAMP => Ok(time::timestamp(i64::from_be_bytes(fixed(raw)?), "")),
        Type::TIMESTAMPTZ => Ok(time::timestamp(i64::from_be_bytes(fixed(raw)?), "+00")),
        Type::INTERVAL => {
            let mut reader = Reader(raw);
            let micros = i64::from_be_bytes(fixed(reader.take(8)?)?);
            let days = reader.i32()?;
            Ok(time::interval(reader.i32()?, days, micros))
        }
        Type::INET | Type::CIDR => address(raw),
        // Of an extension, so without an id that is known beforehand.
        _ if ty.name() == "citext" => utf8(raw),
        _ => Err(Malformed::Unknown),
    }
}

fn utf8(raw: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(raw.to_vec()).map_err(|_| Malformed::Wrong)
}

/// A number as PostgreSQL reads it.
pub(super) fn float(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // The shortest that is read as the same number again.
    format!("{value:?}").replace(".0e", "e").trim_end_matches(".0").to_owned()
}

fn float_of(value: f32) -> String {
    if value.is_finite() {
        return format!("{value:?}").trim_end_matches(".0").to_owned();
    }
    float(value.into())
}

/// Base 10,000, with a weight for the first digit and a number of decimal digits to show.
fn numeric(raw: &[u8]) -> Result<String, Malformed> {
    let mut reader = Reader(raw);
    let (count, weight, sign, scale) = (reader.i16()?, reader.i16()?, reader.i16()? as u16, reader.i16()?);
    match sign {
        0xC000 => return Ok("NaN".to_owned()),
        0xD000 => return Ok("Infinity".to_owned()),
        0xF000 => return Ok("-Infinity".to_owned()),
        0x0000 | 0x4000 => {}
        _ => return Err(Malformed::Wrong),
    }
    let digits = (0..count).map(|_| reader.i16()).collect::<Result<Vec<i16>, _>>()?;
    let digit = |at: i32| usize::try_from(at).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
    let mut out = if sign == 0x4000 { "-" } else { "" }.to_owned();
    let weight = i32::from(weight);
    if weight < 0 {
        out.push('0');
    }
    for at in 0..=weight {
        out += &if at == 0 { digit(at).to_string() } else { format!("{:04}", digit(at)) };
    }
    let scale = usize::try_from(scale).map_err(|_| Malformed::Wrong)?;
    if scale > 0 {
        let groups = i32::try_from(scale.div_ceil(4)).map_err(|_| Malformed::Wrong)?;
        let fraction: String = (weight + 1..).take(groups as usize).map(|at| format!("{:04}", digit(at))).collect();
        out.push('.');
        out += fraction.get(..scale).ok_or(Malformed::Wrong)?;
    }
    Ok(out)
}

fn address(raw: &[u8]) -> Result<String, Malformed> {
    let mut reader = Reader(raw);
    let header: [u8; 4] = fixed(reader.take(4)?)?;
    let [_, bits, is_cidr, _] = header;
    let (address, width) = match reader.0.len() {
        4 => (Ipv4Addr::from(fixed::<4>(reader.0)?).to_string(), 32),
        16 => (Ipv6Addr::from(fixed::<16>(reader.0)?).to_string(), 128),
        _ => return Err(Malformed::Wrong),
    };
    Ok(if is_cidr == 0 && bits == width { address } else { format!("{address}/{bits}") })
}

fn array(element: &Type, raw: &[u8]) -> Result<String, Malformed> {
    let mut reader = Reader(raw);
    let (dimensions, _has_null, _element) = (reader.i32()?, reader.i32()?, reader.i32()?);
    if dimensions == 0 {
        return Ok("{}".to_owned());
    }
    // PostgreSQL's own bound is 6.
    let mut lengths = Vec::new();
    for _ in 0..dimensions.clamp(0, 16) {
        let length = usize::try_from(reader.i32()?).map_err(|_| Malformed::Wrong)?;
        let _lower_bound = reader.i32()?;
        lengths.push(length);
    }
    level(element, &lengths, &mut reader)
}

fn level(element: &Type, lengths: &[usize], reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let Some((length, inner)) = lengths.split_first() else { return item(element, reader) };
    let mut out = "{".to_owned();
    for at in 0..*length {
        if at > 0 {
            out.push(',');
        }
        out += &level(element, inner, reader)?;
    }
    out.push('}');
    Ok(out)
}

fn item(element: &Type, reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let length = reader.i32()?;
    if length < 0 {
        return Ok("NULL".to_owned());
    }
    let text = text(element, reader.take(length as usize)?)?;
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '{' | '}' | ',' | '"' | '\\');
    if !text.is_empty() && text.chars().all(plain) && !text.eq_ignore_ascii_case("null") {
        return Ok(text);
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPES: [Type; 20] = [
        Type::BOOL,
        Type::INT8,
        Type::FLOAT4,
        Type::TEXT,
        Type::NUMERIC,
        Type::UUID,
        Type::DATE,
        Type::TIME,
        Type::TIMETZ,
        Type::TIMESTAMP,
        Type::TIMESTAMPTZ,
        Type::INTERVAL,
        Type::INET,
        Type::JSONB,
        Type::CHAR,
        Type::TEXT_ARRAY,
        Type::NUMERIC_ARRAY,
        Type::INT4_ARRAY,
        Type::BYTEA_ARRAY,
        Type::POINT,
    ];

    proptest! {
        #[test]
        fn no_bytes_panic(raw: Vec<u8>, dimensions in 0..4u8) {
            let mut array = vec![0, 0, 0, dimensions];
            array.extend(&raw);
            for ty in TYPES {
                let _ = text(&ty, &raw);
                let _ = text(&ty, &array);
            }
        }

        #[test]
        fn no_moment_panics(date: i32, micros: i64, months: i32) {
            for ty in [Type::TIME, Type::TIMESTAMP, Type::TIMESTAMPTZ] {
                text(&ty, &micros.to_be_bytes()).unwrap();
            }
            text(&Type::DATE, &date.to_be_bytes()).unwrap();
            let interval = [&micros.to_be_bytes()[..], &date.to_be_bytes(), &months.to_be_bytes()].concat();
            text(&Type::INTERVAL, &interval).unwrap();
        }

        #[test]
        fn a_float_is_read_as_the_same_again(value: f64) {
            let read: f64 = float(value).parse().unwrap();
            prop_assert!(read == value || (read.is_nan() && value.is_nan()));
        }
    }
}
