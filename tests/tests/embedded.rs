//! The model inside the process, with its real weights: the main job in small.

use nexa_tests::Desk;

const PROGRAM: &str = "\
protocol Label { kind: str, score: int }
agent Judge(text: str) -> Label {
    prompt: \"What kind of text is this? The score is from 0 to 10.\"
    temperature: 0.0, max_tokens: 60
}
flow main(text: str) -> Label { return text >> Judge }
";

#[test]
fn the_embedded_model_fills_a_protocol() {
    let desk = Desk::new();
    let listed = desk.run(&["models", "list", "-o", "json"]).good();
    let is_missing = |line: &str| line.contains("local/smollm2") && line.contains("\"is_there\":false");
    if listed.lines().any(is_missing) {
        // `cargo xtask test` fetches them; a plain `cargo test` on a laptop may lack them.
        assert!(std::env::var_os("CI").is_none(), "the weights are missing: run `nexa models pull`");
        eprintln!("skipped: no weights of the embedded model; `nexa models pull` fetches them");
        return;
    }
    let program = desk.write("label.nx", PROGRAM);
    let program = program.to_str().expect("a plain path");
    let input = "\"Dear Ada, the meeting is moved to Sunday. Yours, Grace\"";
    let out = desk.run(&["run", program, "--input", input, "-o", "json"]).good();
    let last: serde_json::Value = serde_json::from_str(out.lines().last().expect("a line")).expect("JSON");
    let label = &last["workload"]["outcome"]["ok"];
    assert!(label["kind"].is_string() && label["score"].is_i64(), "{last}");
    assert!(last["workload"]["spend"]["tokens_out"].as_u64() <= Some(60), "{last}");
}
