use super::*;
use proptest::prelude::*;
use proptest::sample::select;

const GIB: u32 = 1024;

fn request(names: &[&str]) -> GpuRequest {
    GpuRequest {
        names: names.iter().map(|name| gpu::canonical(name)).collect(),
        ..GpuRequest::default()
    }
}

fn gib(min: impl Into<Option<u32>>, max: impl Into<Option<u32>>) -> Bounds {
    let mib = |end: Option<u32>| end.map(|gib| gib * GIB);
    Bounds {
        min: mib(min.into()),
        max: mib(max.into()),
    }
}

fn check(text: &str, expected: &GpuRequest, printed: &str) {
    assert_eq!(parse(text).as_ref(), Ok(expected), "{text}");
    assert_eq!(print(expected), printed);
}

#[test]
fn names_and_vendors_are_read() {
    check("H100", &request(&["H100"]), "H100");
    check("nvidia_h100", &request(&["H100"]), "H100");
    check("H100,H100,h100-sxm", &request(&["H100"]), "H100");
    check(" L4 , t4 ", &request(&["L4", "T4"]), "L4,T4");
    check(
        "Foo 9,tpu-v2-8",
        &request(&["Foo 9", "tpu-v2-8"]),
        "Foo 9,tpu-v2-8",
    );
    check("any", &GpuRequest::default(), "any");
    check("ANY", &GpuRequest::default(), "any");
    let of = |vendor| GpuRequest {
        vendor: Some(vendor),
        ..GpuRequest::default()
    };
    check("AMD", &of(Vendor::Amd), "amd");
    check("tpu", &of(Vendor::Google), "google");
}

#[test]
fn counts_and_shares_are_read() {
    let counts = [
        ("2", Bounds::exactly(2), "2"),
        ("1..4", Bounds::between(1, 4), "1..4"),
        ("2..", Bounds::at_least(2), "2.."),
        ("..8", Bounds::at_most(8), "..8"),
        ("4..4", Bounds::exactly(4), "4"),
    ];
    for (text, count, printed) in counts {
        let expected = GpuRequest {
            count,
            ..request(&["H100"])
        };
        check(
            &format!("H100:{text}"),
            &expected,
            &format!("H100:{printed}"),
        );
    }
    for (text, share, printed) in [("0.5", 500, "0.5"), (".167", 167, "0.167")] {
        let expected = GpuRequest {
            share_milli: Some(share),
            ..request(&["A10"])
        };
        check(&format!("A10:{text}"), &expected, &format!("A10:{printed}"));
    }
}

#[test]
fn memory_is_read() {
    let amounts = [
        ("24GB", gib(24, 24), "24GB"),
        ("24576M", gib(24, 24), "24GB"),
        ("40GB..80GB", gib(40, 80), "40GB..80GB"),
        ("80GB..", gib(80, None), "80GB.."),
        ("..24GB", gib(None, 24), "..24GB"),
    ];
    for (text, memory_mib, printed) in amounts {
        let expected = GpuRequest {
            memory_mib,
            ..GpuRequest::default()
        };
        check(&format!("any:{text}"), &expected, &format!("any:{printed}"));
        let with_count = GpuRequest {
            count: Bounds::at_most(8),
            ..expected
        };
        check(
            &format!("any : {text} : ..8"),
            &with_count,
            &format!("any:{printed}:..8"),
        );
    }
}

#[test]
fn memory_says_which_card_of_a_family_is_meant() {
    let cases = [
        ("A100", "A100"),
        ("A100:2", "A100:2"),
        ("A100:80GB", "A100-80GB:80GB"),
        ("A100:40GB", "A100:40GB"),
        ("A100:40GB..", "A100,A100-80GB:40GB.."),
        ("H100,L40S:48GB..:2", "H100,H100-NVL,L40S:48GB..:2"),
        ("A100:..40GB", "A100:..40GB"),
        ("A100-80GB:40GB..", "A100-80GB:40GB.."),
        ("V100:32GB:4", "V100-32GB:32GB:4"),
        // Nothing of that name is so large: the name stays, and the refusal will say so.
        ("A100:141GB", "A100:141GB"),
        ("foo:80GB", "foo:80GB"),
    ];
    for (text, printed) in cases {
        assert_eq!(print(&parse(text).unwrap()), printed, "{text}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let owned = str::to_owned;
    let cases = [
        ("", Error::NoName(owned(""))),
        (":2", Error::NoName(owned(":2"))),
        ("8", Error::NoName(owned("8"))),
        ("80GB:2", Error::NoName(owned("80GB:2"))),
        ("H100,:2", Error::NoName(owned("H100,:2"))),
        ("any,H100", Error::NotAlone(owned("any"))),
        ("H100,amd", Error::NotAlone(owned("amd"))),
        ("H100:", Error::Part(String::new())),
        ("H100:x", Error::Part(owned("x"))),
        ("H100:..", Error::Part(owned(".."))),
        ("H100:1...2", Error::Share(owned("1...2"))),
        ("H100:-1", Error::Part(owned("-1"))),
        ("H100:99999999999", Error::Part(owned("99999999999"))),
        ("H100:0GB", Error::None(owned("0GB"))),
        ("H100:0", Error::None(owned("0"))),
        ("H100:0..4", Error::None(owned("0..4"))),
        ("H100:..0", Error::None(owned("..0"))),
        ("H100:0.0", Error::None(owned("0.0"))),
        ("H100:4..2", Error::Backwards(owned("4..2"))),
        ("H100:80GB..40GB", Error::Backwards(owned("80GB..40GB"))),
        ("H100:2:80GB", Error::OutOfPlace(owned("80GB"))),
        ("H100:2:2", Error::OutOfPlace(owned("2"))),
        ("H100:80GB:80GB", Error::OutOfPlace(owned("80GB"))),
        ("H100:1.5", Error::Share(owned("1.5"))),
        ("H100:1.0", Error::Share(owned("1.0"))),
        ("H100:0.5..1", Error::Share(owned("0.5..1"))),
        ("H100:0.5..", Error::Share(owned("0.5.."))),
        ("H100:0.0005", Error::Share(owned("0.0005"))),
        (
            "H100:40..80GB",
            Error::Memory(memory::Error::NoUnit(owned("40"))),
        ),
        (
            "H100:80XB",
            Error::Memory(memory::Error::Malformed(owned("80XB"))),
        ),
    ];
    for (text, error) in cases {
        assert_eq!(parse(text), Err(error), "{text}");
    }
}

#[test]
fn each_error_says_what_to_write() {
    for text in [
        "",
        "any,H100",
        "H100:x",
        "H100:80XB",
        "H100:4..2",
        "H100:0.5..1",
        "H100:2:2",
    ] {
        let message = parse(text).unwrap_err().to_string();
        assert!(message.contains("write "), "{message}");
        assert!(
            !message.ends_with('.') && !message.contains('\n'),
            "{message}"
        );
    }
    let message = parse("H100:0").unwrap_err().to_string();
    assert_eq!(
        message,
        "`0` asks for nothing: a count is at least 1, a share 0.001, memory 1MB"
    );
}

fn bounds(most: u32) -> impl Strategy<Value = Bounds> {
    let end = proptest::option::of(1..=most);
    (end.clone(), end).prop_map(|(one, other)| match (one, other) {
        (Some(one), Some(other)) => Bounds::between(one.min(other), one.max(other)),
        (min, max) => Bounds { min, max },
    })
}

/// Requests that have words in the syntax.
fn requests() -> impl Strategy<Value = GpuRequest> {
    let spellings: Vec<&str> = gpu::known()
        .iter()
        .map(|entry| entry.name)
        .chain(["tpu-v4-64", "Foo 9"])
        .collect();
    let names = proptest::collection::vec(select(spellings), 0..4);
    let amount = prop_oneof![
        bounds(1024).prop_map(|count| (count, None)),
        (1..gpu::WHOLE).prop_map(|share| (Bounds::ANY, Some(share))),
    ];
    let vendor = proptest::option::of(select(Vendor::ALL.to_vec()));
    (names, vendor, bounds(memory::MAX_MIB), amount).prop_map(
        |(names, vendor, memory_mib, (count, share_milli))| {
            let vendor = vendor.filter(|_| names.is_empty());
            let mut named = request(&[]);
            for name in names.into_iter().map(gpu::canonical) {
                if !named.names.contains(&name) {
                    named.names.push(name);
                }
            }
            GpuRequest {
                vendor,
                memory_mib,
                count,
                share_milli,
                ..named
            }
            .with_sized_names()
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same(request in requests()) {
        prop_assert_eq!(parse(&print(&request)), Ok(request));
    }

    #[test]
    fn what_is_read_prints_so_that_it_reads_as_the_same(
        text in r"(any|amd|A100|rtx 4090|v2-8|Foo)(,(H100|b200))?(:[0-9.]{1,5}[GM]B?(\.\.)?)?(:[0-9.]{1,6})?|\PC{0,16}"
    ) {
        if let Ok(request) = parse(&text) {
            prop_assert_eq!(parse(&print(&request)), Ok(request));
        }
    }
}
