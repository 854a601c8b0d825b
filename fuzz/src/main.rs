//! The fuzz targets as a program: `TALLY_FUZZ_TARGET=NAME fuzz [libFuzzer's arguments]`; built
//! without libFuzzer it lists the targets, or replays the files it is given.
#![cfg_attr(feature = "testing", no_main)]

#[cfg(feature = "testing")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use std::sync::OnceLock;
    static RUN: OnceLock<fuzz::Run> = OnceLock::new();
    let run = RUN.get_or_init(|| {
        #[expect(clippy::disallowed_methods, reason = "libFuzzer owns the command line")]
        let name = std::env::var("TALLY_FUZZ_TARGET").expect("TALLY_FUZZ_TARGET names the target");
        fuzz::target(&name).expect("a known target")
    });
    run(data);
});

#[cfg(not(feature = "testing"))]
#[expect(clippy::print_stdout, reason = "it answers the person who started it")]
fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(name) = args.next() else {
        for (name, _) in fuzz::TARGETS {
            println!("{name}");
        }
        return std::process::ExitCode::SUCCESS;
    };
    let Some(run) = fuzz::target(&name) else {
        println!("there is no target {name}");
        return std::process::ExitCode::FAILURE;
    };
    for path in args {
        match std::fs::read(&path) {
            Ok(bytes) => run(&bytes),
            Err(error) => println!("{path}: {error}"),
        }
    }
    std::process::ExitCode::SUCCESS
}
