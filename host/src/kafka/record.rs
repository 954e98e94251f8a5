//! A record of librdkafka as a [`Message`], unchanged, and headers the other way.

use std::ffi::CStr;

use rdkafka::bindings;
use rdkafka::message::{BorrowedMessage, Message as _, OwnedHeaders};

use crate::plugin::contract::{Bytes, Header, Message};

/// Copies a record. `true`: the name of a header is no UTF-8 and was replaced in part.
pub(crate) fn message(record: &BorrowedMessage<'_>) -> (Message, bool) {
    let (headers, replaced) = read_headers(record);
    let message = Message {
        topic: record.topic().to_owned(),
        partition: record.partition(),
        offset: record.offset(),
        timestamp: record.timestamp().to_millis().and_then(|millis| u64::try_from(millis).ok()),
        key: record.key().map(|key| Bytes(key.to_vec())),
        value: record.payload().map(|value| Bytes(value.to_vec())),
        headers,
    };
    (message, replaced)
}

/// What a record takes in memory, roughly.
pub(crate) fn size(message: &Message) -> usize {
    let bytes = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.0.len());
    let headers: usize = message.headers.iter().map(|header| header.name.len() + bytes(&header.value) + 64).sum();
    256 + bytes(&message.key) + bytes(&message.value) + headers
}

/// Copies the headers alone.
pub(crate) fn headers(record: &BorrowedMessage<'_>) -> Vec<Header> {
    read_headers(record).0
}

// rust-rdkafka's own `Headers` panics on a name that is no UTF-8, and anyone may produce one.
#[allow(unsafe_code)]
fn read_headers(record: &BorrowedMessage<'_>) -> (Vec<Header>, bool) {
    let mut native = std::ptr::null_mut();
    // SAFETY: `record.ptr()` is a valid message while `record` lives; librdkafka parses the headers into the message, keeps
    // ownership of them, and writes to `native` only when it returns no error.
    let code = unsafe { bindings::rd_kafka_message_headers(record.ptr(), &raw mut native) };
    let mut headers = Vec::new();
    let mut replaced = false;
    if code != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return (headers, replaced);
    }
    loop {
        let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: `native` belongs to the message, which `record` keeps alive; the three outputs are written when the index is in
        // range, and the error NOENT is returned when it is not.
        let code = unsafe {
            bindings::rd_kafka_header_get_all(native, headers.len(), &raw mut name, &raw mut value, &raw mut size)
        };
        if code != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return (headers, replaced);
        }
        // SAFETY: librdkafka ends names with a NUL, and they live as long as the message.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        replaced |= matches!(name, std::borrow::Cow::Owned(_));
        let value = (!value.is_null()).then(|| {
            // SAFETY: `value` points to `size` bytes that live as long as the message (a slice of no bytes needs no valid end).
            Bytes(unsafe { std::slice::from_raw_parts(value.cast::<u8>(), size) }.to_vec())
        });
        headers.push(Header { name: name.into_owned(), value });
    }
}

/// Headers to produce.
pub(crate) fn outgoing_headers(headers: &[Header]) -> OwnedHeaders {
    headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, header| {
        all.insert(rdkafka::message::Header {
            key: &header.name,
            value: header.value.as_ref().map(|value| value.0.as_slice()),
        })
    })
}
