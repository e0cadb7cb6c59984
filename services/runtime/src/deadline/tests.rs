use super::*;

fn headers(value: &'static str) -> HeaderMap {
    let value = HeaderValue::from_bytes(value.as_bytes()).expect("no control characters");
    HeaderMap::from_iter([(http::HeaderName::from_static(HEADER), value)])
}

#[test]
fn reads_every_unit() {
    for (text, expected) in [
        ("2H", Duration::from_secs(7200)),
        ("3M", Duration::from_secs(180)),
        ("4S", Duration::from_secs(4)),
        ("5m", Duration::from_millis(5)),
        ("6u", Duration::from_micros(6)),
        ("99999999n", Duration::from_nanos(99_999_999)),
    ] {
        assert_eq!(read(&headers(text)), Ok(Some(expected)), "{text}");
    }
    assert_eq!(read(&HeaderMap::new()), Ok(None));
}

#[test]
fn refuses_what_the_specification_does_not_allow() {
    for text in [
        "",
        "S",
        "1",
        "1s",
        "1h",
        "123456789S",
        "-1S",
        "1.5S",
        "+1S",
        " 1S",
        "1 S",
        "é",
    ] {
        assert_eq!(read(&headers(text)), Err(Malformed), "{text:?}");
    }
}

#[test]
fn what_is_written_is_read_back_within_its_precision() {
    for timeout in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_millis(300),
        Duration::from_secs(99),
        Duration::from_secs(100_001),
        Duration::from_secs(60 * 60 * 24 * 365),
        Duration::MAX,
    ] {
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static(HEADER), header_value(timeout))]);
        let back = read(&headers).expect("valid").expect("there");
        assert!(back <= timeout, "{timeout:?} became {back:?}");
        if timeout < Duration::from_secs(99_999_999) {
            assert!(
                timeout - back <= timeout / 1000,
                "{timeout:?} became {back:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_remains_shrinks_with_time() {
    let mut outbound = tonic::Request::new(());
    Deadline::after(Duration::from_secs(3)).carry(&mut outbound);
    tokio::time::advance(Duration::from_secs(1)).await;
    let deadline = Deadline::of(&outbound).expect("carried");
    assert_eq!(deadline.remaining(), Duration::from_secs(2));
    assert_eq!(
        deadline.less(Duration::from_secs(1)).remaining(),
        Duration::from_secs(1)
    );
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(deadline.remaining(), Duration::ZERO);
}
