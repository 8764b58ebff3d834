//! What every CLI is put through.

use serde_json::{Value, json};
use system_tests::clients::{Answer, Client, Clients, Job};
use system_tests::config::UPSTREAM_CREDENTIAL;
use system_tests::gateway::Gateway;
use system_tests::vendor::{ANSWER, FakeVendor, UNICODE, long_text};
use system_tests::{ABORT_BOUND, SOON};

use crate::echo::{containers, gone, kill_all, one_gone, running};

/// A CLI behind the gateway, and what is known of it.
struct Cli {
    gateway: Gateway,
    vendor: FakeVendor,
    clients: Clients,
    model: String,
    traits: Traits,
}

/// Where CLIs differ for good reasons.
#[derive(Clone, Copy)]
struct Traits {
    /// The CLI tells that the model stopped at its limit of tokens.
    tells_length: bool,
}

impl Cli {
    async fn start(name: &str, traits: Traits) -> Self {
        let vendor = FakeVendor::start().await;
        let gateway = Gateway::start_with_clis(&[name], &vendor.base_url()).await;
        let clients = Clients::default();
        let models = clients.run(Client::Python3, &Job::models(&gateway)).await;
        let models = models.ok().data.as_array().expect("a list of models").clone();
        let of_this_cli = |model: &&Value| model["owned_by"] == name;
        let model = models.iter().find(of_this_cli).unwrap_or_else(|| panic!("{name} in {models:?}"));
        let model = model["id"].as_str().expect("ids are text").to_owned();
        Self { gateway, vendor, clients, model, traits }
    }

    async fn ask(&self, members: Value) -> Answer {
        let mut body = json!({"model": self.model});
        let Value::Object(members) = members else { panic!("members of a request are an object") };
        body.as_object_mut().expect("it was just made").extend(members);
        self.clients.run(Client::Python3, &Job::chat_stream(&self.gateway, body)).await
    }

    async fn scene(&self, name: &str) -> Answer {
        self.ask(json!({"messages": [{"role": "user", "content": format!("Go on. scene:{name}")}]})).await
    }

    async fn run(self) {
        self.answers().await;
        self.keeps_text_whole().await;
        self.knows_the_conversation().await;
        self.lives_through_tools().await;
        self.tells_how_it_ended().await;
        self.tells_what_failed().await;
        self.ends_when_the_client_leaves().await;
        self.tells_when_the_cli_dies().await;
        let key_seen = self.vendor.calls().iter().all(|call| {
            call.headers.values().any(|value| value.to_str().is_ok_and(|v| v.contains(UPSTREAM_CREDENTIAL)))
        });
        assert!(key_seen, "every call has the operator's credential, which no sandbox knows");
        let Self { gateway, vendor, .. } = self;
        let node = containers(&gateway);
        gateway.stop().await;
        gone(&node).await;
        drop(vendor);
    }

    async fn answers(&self) {
        let answer = self.scene("answer").await;
        assert_eq!(answer.ok().text, ANSWER.concat());
        assert_eq!(answer.finish_reason.as_deref(), Some("stop"));
        let usage = answer.usage.expect("usage is always there");
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (25, Some(12)), "as the vendor counts");

        let body = json!({"model": self.model, "messages": [{"role": "user", "content": "scene:answer"}]});
        let whole = self.clients.run(Client::Python3, &Job::chat(&self.gateway, body)).await;
        assert_eq!(whole.ok().data["choices"][0]["message"]["content"], ANSWER.concat());
    }

    async fn keeps_text_whole(&self) {
        assert_eq!(self.scene("unicode").await.ok().text, UNICODE);
        assert_eq!(self.scene("long").await.ok().text, long_text());
    }

    async fn knows_the_conversation(&self) {
        let before = self.vendor.model_calls().len();
        let answer = self
            .ask(json!({"messages": [
                {"role": "system", "content": "Always mention the aardvark."},
                {"role": "user", "content": "My name is Ottoline."},
                {"role": "assistant", "content": "Good evening, Ottoline."},
                {"role": "user", "content": "What is my name? scene:answer"},
            ]}))
            .await;
        assert_eq!(answer.ok().text, ANSWER.concat());
        let calls = self.vendor.model_calls();
        let seen = &calls[before..].last().expect("the vendor was called").body;
        for part in [
            "Always mention the aardvark.",
            "My name is Ottoline.",
            "Good evening, Ottoline.",
            "What is my name?",
        ] {
            assert!(seen.contains(part), "{part:?} reaches the vendor: {seen}");
        }
        // And nothing of it is left for the next one.
        let before = self.vendor.model_calls().len();
        self.scene("answer").await.ok();
        let calls = self.vendor.model_calls();
        assert!(calls[before..].iter().all(|call| !call.body.contains("Ottoline")));
    }

    async fn lives_through_tools(&self) {
        let before = self.vendor.model_calls().len();
        assert_eq!(self.scene("tool").await.ok().text, ANSWER.concat());
        assert!(self.vendor.model_calls().len() >= before + 2, "the tool's result goes to the vendor");
    }

    async fn tells_how_it_ended(&self) {
        let length = self.scene("length").await;
        assert_eq!(length.ok().text, ANSWER.concat(), "once, however often the CLI asks again");
        let expected = if self.traits.tells_length { "length" } else { "stop" };
        assert_eq!(length.finish_reason.as_deref(), Some(expected));

        let refusal = self.scene("refusal").await;
        let refused = refusal.finish_reason.as_deref() == Some("content_filter")
            || refusal.error.as_ref().is_some_and(|error| error.code == "content_filter");
        assert!(refused, "{refusal:?}");
    }

    async fn tells_what_failed(&self) {
        for (scene, status, code) in [
            ("401", 403, "upstream_auth_failed"),
            ("429", 429, "rate_limit_exceeded"),
            ("500", 502, "upstream_unavailable"),
        ] {
            let answer = self.scene(scene).await;
            let error = answer.error();
            assert_eq!((error.status, &error.code), (Some(status), &json!(code)), "{scene}: {error:?}");
        }
        let dropped = self.scene("drop").await;
        let error = dropped.error();
        assert!(error.message.is_some(), "an end in the middle is an error: {dropped:?}");
    }

    async fn ends_when_the_client_leaves(&self) {
        for scene in ["stall", "hang"] {
            let mut job = self.job(scene);
            // The CLI may have to be started first.
            match scene {
                "stall" => job.abort_after_chunks = Some(1),
                _ => job.abort_after_ms = Some(8000),
            }
            let filter = containers(&self.gateway);
            let run = async {
                self.vendor.listened_to(SOON * 2).await;
                // The one of this run, and those that wait for others.
                running(&filter)
            };
            let (answer, during) = tokio::join!(self.clients.run(Client::Python3, &job), run);
            assert!(answer.aborted, "{scene}: {answer:?}");
            let its_end = self.vendor.deserted(ABORT_BOUND);
            tokio::join!(its_end, one_gone(&filter, &during));
        }
    }

    async fn tells_when_the_cli_dies(&self) {
        let job = self.job("stall");
        let kill = async {
            self.vendor.listened_to(SOON * 2).await;
            kill_all(&containers(&self.gateway));
        };
        let (answer, ()) = tokio::join!(self.clients.run(Client::Python3, &job), kill);
        assert!(answer.error().message.is_some(), "{answer:?}");
        assert_eq!(self.scene("answer").await.ok().text, ANSWER.concat(), "and the next one is served");
    }

    fn job(&self, scene: &str) -> Job {
        let messages = json!([{"role": "user", "content": format!("scene:{scene}")}]);
        Job::chat_stream(&self.gateway, json!({"model": self.model, "messages": messages}))
    }
}

#[tokio::test]
async fn claude_code() {
    Cli::start("claude", Traits { tells_length: true }).await.run().await;
}

#[tokio::test]
async fn gemini_cli() {
    Cli::start("gemini", Traits { tells_length: true }).await.run().await;
}

#[tokio::test]
async fn codex_cli() {
    Cli::start("codex", Traits { tells_length: true }).await.run().await;
}
