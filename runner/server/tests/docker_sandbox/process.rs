//! The backend that needs no Docker, where the host allows namespaces to be made.

use dyad_runner::config::model::Isolated;
use dyad_runner::sandbox::SandboxError;

use crate::support::{TestNode, prepare, run, spec};

#[tokio::test]
async fn a_process_reads_and_prints() {
    let mut node = TestNode::new();
    node.config.engine.allow_process = true;
    let engine = node.engine().await;
    let prepared = prepare(&engine, &Isolated::Process).await;
    let finished = run(&engine, spec(&prepared, &["cat"]), b"hello").await;
    assert_eq!((finished.text().as_str(), finished.stderr.as_str()), ("hello", ""));
    assert_eq!(finished.exit.code, Some(0));
}

#[tokio::test]
async fn processes_are_refused_unless_allowed() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let error = engine.prepare(&Isolated::Process, &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, SandboxError::Process(_)), "{error}");
}
