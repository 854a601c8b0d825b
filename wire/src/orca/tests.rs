//! Vectors of the three forms as known senders write them, and round trips.

use super::*;
use proptest::prelude::*;

fn read(value: &str) -> Result<OrcaReport, OrcaError> {
    OrcaReport::parse(HEADER.as_bytes(), value.as_bytes())
}

fn load(value: &str) -> Option<u16> {
    read(value).ok()?.load().map(Load::ten_thousandths)
}

#[test]
fn the_load_is_what_is_made_to_say_it() {
    for (value, expected) in [
        ("TEXT cpu_utilization=0.3, mem_utilization=0.8", Some(3000)),
        ("TEXT application_utilization=0.5,cpu_utilization=0.3,utilization.disk=0.9", Some(5000)),
        ("TEXT cpu_utilization=0.3,utilization.disk=0.9,utilization.net=0.7", Some(9000)),
        ("TEXT application_utilization=0,cpu_utilization=0.3", Some(0)),
        ("TEXT application_utilization=1.7", Some(17_000)),
        ("TEXT application_utilization=7", Some(40_000)),
        ("TEXT application_utilization=101", None),
        ("TEXT mem_utilization=0.8, rps_fractional=3", None),
        ("TEXT", None),
        ("", None),
        ("cpu_utilization:0.3", Some(3000)),
        ("text cpu_utilization:0.3,mem_utilization:0.1", Some(3000)),
        ("JSON {\"cpu_utilization\": 0.25, \"rps_fractional\": 3}", Some(2500)),
        ("JSON {\"cpuUtilization\": 0.25, \"utilization\": {\"gpu\": 0.5}}", Some(5000)),
        ("JSON {\"application_utilization\": \"0.5\", \"cpu_utilization\": null}", Some(5000)),
        ("JSON {}", None),
    ] {
        assert_eq!(load(value), expected, "{value}");
    }
}

#[test]
fn requests_in_flight_have_several_names() {
    for (value, expected) in [
        ("TEXT named_metrics.rif=7", Some(7)),
        ("TEXT named_metrics.in_flight=3, cpu_utilization=1", Some(3)),
        ("TEXT named_metrics.requests_in_flight=2,named_metrics.rif=9", Some(9)),
        ("TEXT named_metrics.rif=9,named_metrics.in_flight=2", Some(9)),
        ("JSON {\"named_metrics\": {\"in_flight\": 4, \"queue\": -3}}", Some(4)),
        ("TEXT named_metrics.queue=4, rif=3", None),
    ] {
        assert_eq!(read(value).unwrap().in_flight, expected, "{value}");
    }
    let read = read("TEXT rps_fractional=12.5, eps=0.25").unwrap();
    assert_eq!((read.rps_milli(), read.eps_milli()), (Some(12_500), Some(250)));
}

#[test]
fn what_cannot_be_is_refused_whole() {
    let numbers = ["NaN", "inf", "-inf", "-0.1", "", "0x1", "1;", "1=2", "1 2"];
    for number in numbers {
        for key in ["cpu_utilization", "rps_fractional", "utilization.a", "named_metrics.rif"] {
            let value = format!("TEXT {key}={number}, mem_utilization=0.1");
            let refused = read(&value);
            assert!(matches!(refused, Err(OrcaError::Number(_))), "{value}: {refused:?}");
        }
    }
    for twice in [
        "TEXT eps=1,eps=1",
        "TEXT named_metrics.a=1,named_metrics.a=2",
        "TEXT request_cost.a=1,request_cost.a=2",
    ] {
        assert!(matches!(read(twice), Err(OrcaError::Twice(_))), "{twice}");
    }
    assert!(read("TEXT named_metrics.a=1,utilization.a=1,request_cost.a=1").is_ok());
    for unreadable in [
        "TEXT cpu_utilization",
        "TEXT named_metrics.=1",
        "JSON {",
        "JSON []",
        "JSON {} x",
        "JSON {\"eps\": true}",
        "JSON {\"eps\": 1, \"eps\": 2}",
        "JSON {\"eps\": 1e999}",
        "JSON {\"eps\": \"NaN\"}",
        "JSON {\"cpu_utilization\": -1}",
        "JSON {\"cpu_utilization\": 1, \"cpuUtilization\": 1}",
        "JSON {\"utilization\": {\"a\": 1, \"a\": 1}}",
        "JSON {\"utilization\": {\"a\": 1}, \"utilization\": {\"b\": 1}}",
        "JSON {\"utilization\": 3}",
        "BIN !",
        "BIN AAAA",
    ] {
        assert!(read(unreadable).is_err(), "{unreadable}");
    }
    let names = |n: usize| {
        let list: Vec<String> = (0..n).map(|i| format!("named_metrics.m{i}=1")).collect();
        format!("TEXT {}", list.join(","))
    };
    assert!(read(&names(NAMES_MAX)).is_ok());
    assert_eq!(read(&names(NAMES_MAX + 1)), Err(OrcaError::TooMany));
    assert!(read(&format!("{},named_metrics.m9=1", names(20))).is_err());
    assert_eq!(read(&" ".repeat(VALUE_BYTES_MAX + 1)), Err(OrcaError::TooLong));
}

#[test]
fn unknown_keys_and_empty_elements_are_passed_over() {
    assert_eq!(load("TEXT ,gpu=x,, cpu_utilization = 0.5 ,new.kind=3,"), Some(5000));
    assert_eq!(load("JSON {\"new\": {\"a\": [1]}, \"cpu_utilization\": 0.5}"), Some(5000));
    // `=` divides where both signs stand.
    assert_eq!(read("TEXT utilization.a:b=0.5").unwrap().utilization, Some(0.5));
}

/// The message with every field that is known, in hexadecimal.
const MESSAGE: &str = "09 9a9999999999b93f 11 333333333333d33f 18 05 22 0c 0a01 61 11 000000000000f03f \
    2a 0e 0a03 677075 11 000000000000e03f 39 000000000000d03f \
    42 14 0a09 696e5f666c69676874 11 0000000000000840 49 9a9999999999d93f";

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hexadecimal.chars().filter_map(|c| u8::try_from(c.to_digit(16)?).ok()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn the_message_is_read_as_protobuf_writes_it() {
    let report = proto::read(&bytes(MESSAGE)).unwrap();
    let expected = OrcaReport {
        cpu_utilization: Some(0.1),
        mem_utilization: Some(0.3),
        application_utilization: Some(0.4),
        utilization: Some(0.5),
        rps: Some(5.0),
        eps: Some(0.25),
        in_flight: Some(3),
    };
    assert_eq!(report, expected);
    // cpu_utilization 0.5, padded and not, in both headers.
    for base64 in
        ["CQAAAAAAAOA/", "EQAAAAAAAAAACQAAAAAAAOA/", "CQAAAAAAAOA/GAE=", "CQAAAAAAAOA/GAE"]
    {
        assert_eq!(load(&format!("BIN {base64}")), Some(5000), "{base64}");
        let bin = OrcaReport::parse(HEADER_BIN.as_bytes(), base64.as_bytes()).unwrap();
        assert_eq!(bin.load().map(Load::ten_thousandths), Some(5000), "{base64}");
    }
    // A message without fields says nothing: senders leave zeros away, but the silent do so, too.
    assert_eq!(proto::read(&[]).unwrap().load(), None);
}

#[test]
fn a_broken_message_is_refused() {
    let whole = bytes(MESSAGE);
    for broken in [
        "09 00",                               // breaks off in a number
        "0a 00",                               // cpu_utilization as bytes
        "08 01",                               // cpu_utilization as a varint
        "2a ff ff ff ff 0f",                   // a length beyond the end
        "2a 01 0a",                            // an entry that breaks off
        "42 0b 12 00 11 0000000000000840",     // a name as another field's kind
        "0b",                                  // a group
        "00 00",                               // no field number
        "ff ff ff ff ff ff ff ff ff ff ff 01", // a number too long
        "ff ff ff ff ff ff ff ff ff 7f 00",    // a number beyond 64 bits
        "09 000000000000f07f",                 // infinite
        "09 000000000000f0bf",                 // negative
        "09 000000000000e03f 09 000000000000e03f",
        "18 01 18 01",
    ] {
        assert!(proto::read(&bytes(broken)).is_err(), "{broken}");
    }
    assert!(proto::read(&[whole.clone(), whole].concat()).is_err());
    // Unknown fields of each kind are passed over.
    let unknown = bytes("78 01 79 0000000000000000 7a 01 00 7d 00000000 09 000000000000e03f");
    assert_eq!(proto::read(&unknown).unwrap().cpu_utilization, Some(0.5));
}

#[test]
fn forms_are_asked_for_by_name() {
    for format in OrcaFormat::ALL {
        assert_eq!(format.as_str().parse(), Ok(format));
        assert_eq!(format.as_str().to_lowercase().parse(), Ok(format));
    }
    assert!("XML".parse::<OrcaFormat>().is_err());
}

fn near(a: &OrcaReport, b: &OrcaReport) -> bool {
    let values = |r: &OrcaReport| {
        [
            r.cpu_utilization,
            r.mem_utilization,
            r.application_utilization,
            r.utilization,
            r.rps,
            r.eps,
        ]
    };
    let same = |(a, b): (Option<f64>, Option<f64>)| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * b.abs(),
        (a, b) => a.is_none() && b.is_none(),
    };
    a.in_flight == b.in_flight && values(a).into_iter().zip(values(b)).all(same)
}

fn reports() -> impl Strategy<Value = OrcaReport> {
    let value = || proptest::option::of(prop_oneof![0.0..4.0, 0.0..1e9, Just(0.0)]);
    let values = (value(), value(), value(), value(), value(), value());
    (values, any::<Option<u32>>()).prop_map(|(v, in_flight)| OrcaReport {
        cpu_utilization: v.0,
        mem_utilization: v.1,
        application_utilization: v.2,
        utilization: v.3,
        rps: v.4,
        eps: v.5,
        in_flight,
    })
}

proptest! {
    #[test]
    fn reports_read_as_written(report in reports()) {
        for format in OrcaFormat::ALL {
            let written = report.write(format);
            prop_assert!(written.len() <= VALUE_BYTES_MAX);
            let back = read(&written).unwrap();
            match format {
                // The JSON library reads the last digit of some numbers as its neighbour.
                OrcaFormat::Json => prop_assert!(near(&back, &report), "{}", written),
                OrcaFormat::Text | OrcaFormat::Bin => prop_assert_eq!(back, report, "{}", written),
            }
        }
        let bin = report.write(OrcaFormat::Bin);
        let base64 = bin.strip_prefix("BIN ").unwrap();
        prop_assert_eq!(OrcaReport::parse(HEADER_BIN.as_bytes(), base64.as_bytes()), Ok(report));
    }

    #[test]
    fn no_value_panics(
        value in proptest::collection::vec(any::<u8>(), 0..80),
        text in "(TEXT |JSON |BIN )?[a-z_.=:,\"{} 0-9A-Z/+-]{0,80}",
    ) {
        let _unused = (OrcaReport::parse(HEADER.as_bytes(), &value), proto::read(&value));
        let _unused = OrcaReport::parse(HEADER_BIN.as_bytes(), &value);
        let _unused = read(&text);
    }

    #[test]
    fn a_changed_message_never_panics(at in 0usize..100, byte: u8) {
        let mut message = bytes(MESSAGE);
        let length = message.len();
        message[at % length] = byte;
        let _unused = proto::read(&message);
    }
}
