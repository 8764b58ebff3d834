//! From the start of a sandbox to its end.

use dyad_runner::sandbox::PROGRAM;

use crate::support::{TestNode, echo, prepare, run, spec};

#[tokio::test]
async fn a_cli_reads_and_prints_and_leaves_nothing() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = prepare(&engine, &echo()).await;
    let finished = run(&engine, spec(&prepared, &[PROGRAM, "echo"]), b"h\xc3\xa9llo\n\0").await;
    assert_eq!(finished.stdout, b"h\xc3\xa9llo\n\0");
    assert_eq!((finished.exit.code, finished.exit.limit), (Some(0), None));
    assert_eq!(finished.stderr, "");
    assert!(node.containers().is_empty());
    assert_eq!(engine.sandboxes(), 0);
}
