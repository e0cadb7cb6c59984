//! What an offer is called: `backend/region[/zone]/instance_type/{ondemand|spot}`, each segment
//! percent-encoded. The name depends on nothing that a refresh changes.

use std::borrow::Cow;

use muster_model::constraints::CapacityType;

/// An id taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferId<'a> {
    /// The backend.
    pub backend: Cow<'a, str>,
    /// The region; empty is none.
    pub region: Cow<'a, str>,
    /// The zone; empty is none.
    pub zone: Cow<'a, str>,
    /// The instance type.
    pub instance_type: Cow<'a, str>,
    /// On demand or spot.
    pub capacity_type: CapacityType,
}

/// The last segment of an id.
pub fn capacity_segment(capacity_type: CapacityType) -> &'static str {
    match capacity_type {
        CapacityType::OnDemand => "ondemand",
        CapacityType::Spot => "spot",
    }
}

/// Encodes one segment: all but unreserved characters (RFC 3986) becomes `%XX`.
pub fn encode(segment: &str) -> Cow<'_, str> {
    if segment.bytes().all(is_unreserved) {
        return Cow::Borrowed(segment);
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(segment.len() + 8);
    for byte in segment.bytes() {
        if is_unreserved(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    Cow::Owned(encoded)
}

/// Decodes one segment; none if it is not as [`encode`] writes it.
pub fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if segment.bytes().all(is_unreserved) {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (hex, after) = rest.split_first_chunk::<2>()?;
            let hex = std::str::from_utf8(hex).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    let decoded = String::from_utf8(bytes).ok()?;
    // One offer has one name.
    (encode(&decoded) == segment).then_some(Cow::Owned(decoded))
}

/// Takes an id apart; none if it is not one.
pub fn parse(id: &str) -> Option<OfferId<'_>> {
    let segments: Vec<&str> = id.split('/').collect();
    let (backend, region, zone, instance_type, capacity_type) = match segments.as_slice() {
        [backend, region, instance_type, capacity] => {
            (backend, region, &"", instance_type, capacity)
        }
        [backend, region, zone, instance_type, capacity] if !zone.is_empty() => {
            (backend, region, zone, instance_type, capacity)
        }
        _ => return None,
    };
    let capacity_type = match *capacity_type {
        "ondemand" => CapacityType::OnDemand,
        "spot" => CapacityType::Spot,
        _ => return None,
    };
    Some(OfferId {
        backend: decode(backend)?,
        region: decode(region)?,
        zone: decode(zone)?,
        instance_type: decode(instance_type)?,
        capacity_type,
    })
}

impl OfferId<'_> {
    /// Puts the id together.
    pub fn render(&self) -> String {
        let mut id = String::with_capacity(64);
        let zone = (!self.zone.is_empty()).then_some(&self.zone);
        let head = [
            Some(&self.backend),
            Some(&self.region),
            zone,
            Some(&self.instance_type),
        ];
        for segment in head.into_iter().flatten() {
            id.push_str(&encode(segment));
            id.push('/');
        }
        id.push_str(capacity_segment(self.capacity_type));
        id
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_regions_are_encoded() {
        let id = OfferId {
            backend: "vast".into(),
            region: "Denmark, DK, EU".into(),
            zone: "".into(),
            instance_type: "1x-RTX_5090-32-65536".into(),
            capacity_type: CapacityType::OnDemand,
        };
        let text = id.render();
        assert_eq!(
            text,
            "vast/Denmark%2C%20DK%2C%20EU/1x-RTX_5090-32-65536/ondemand"
        );
        assert_eq!(parse(&text), Some(id));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let wrong = [
            "",
            "a",
            "a/b/c",
            "a/b/c/d",
            "a/b//c/spot",
            "a/b/c/d/e/spot",
            "a/b%2/c/spot",
            "a/%62/c/spot",
            "a/b/c/Spot",
        ];
        for id in wrong {
            assert_eq!(parse(id), None, "{id:?}");
        }
        assert!(parse("a//c/spot").is_some(), "no region");
    }

    proptest! {
        #[test]
        fn every_id_is_read_as_it_was_written(backend in ".{1,8}", region in ".{0,12}", zone in ".{0,12}", kind in ".{1,12}", spot: bool) {
            let capacity_type = if spot { CapacityType::Spot } else { CapacityType::OnDemand };
            let id = OfferId { backend: backend.into(), region: region.into(), zone: zone.into(), instance_type: kind.into(), capacity_type };
            let text = id.render();
            prop_assert_eq!(parse(&text), Some(id));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            if let Some(id) = parse(&text) {
                prop_assert_eq!(id.render(), text);
            }
        }
    }
}
