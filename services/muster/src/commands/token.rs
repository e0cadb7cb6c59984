//! `muster token`: what lets machines join.

use muster_proto::workers::v1::{
    CreateJoinTokenRequest, JoinToken, ListJoinTokensRequest, ListJoinTokensResponse,
    RevokeJoinTokenRequest,
};

use crate::{
    args::{Format, Token},
    failure::Failure,
    output::table::Table,
    pages::{self, PAGE},
    session::{Component, Session},
    text,
};

/// Makes, shows or ends join tokens.
pub(crate) async fn run(session: &Session, args: &Token) -> Result<(), Failure> {
    match args {
        Token::Create { worker, uses, ttl } => {
            let request = CreateJoinTokenRequest {
                worker_name: worker.clone().unwrap_or_default(),
                max_uses: Some(*uses),
                ttl: (*ttl).try_into().ok(),
                ..CreateJoinTokenRequest::default()
            };
            let answer = session
                .call(
                    Component::Registry,
                    session.workers().create_join_token(request),
                )
                .await?;
            if session.print_message(&answer)? {
                return Ok(());
            }
            // The secret alone, so that it can go into a file.
            session.print(&format!("{}\n", answer.secret))
        }
        Token::List => list(session).await,
        Token::Revoke { id } => {
            let request = RevokeJoinTokenRequest { id: id.clone() };
            let answer = session
                .call(
                    Component::Registry,
                    session.workers().revoke_join_token(request),
                )
                .await?;
            session.print_answer(&answer, id, &format!("{id} is revoked\n"))
        }
    }
}

async fn list(session: &Session) -> Result<(), Failure> {
    let answer = all(session).await?;
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&answer).map(drop),
        Format::Name => {
            let ids = answer.join_tokens.iter().map(|token| &token.id);
            session.print(&ids.map(|id| format!("{id}\n")).collect::<String>())
        }
        Format::Table | Format::Wide => session.print_table(&table(session, &answer.join_tokens)),
    }
}

/// Every token, as one page.
async fn all(session: &Session) -> Result<ListJoinTokensResponse, Failure> {
    pages::joined(async |page_token| {
        let mut registry = session.workers();
        let asked = registry.list_join_tokens(ListJoinTokensRequest {
            page_size: PAGE,
            page_token,
            ..Default::default()
        });
        session.call(Component::Registry, asked).await
    })
    .await
}

fn table(session: &Session, tokens: &[JoinToken]) -> Table {
    let mut table = Table::new(&["ID", "WORKER", ">USES", ">MOST", "ENDS (UTC)", "BY"]);
    for token in tokens {
        let worker = if token.worker_name.is_empty() {
            "any"
        } else {
            &token.worker_name
        };
        table.row(vec![
            token.id.as_str().into(),
            worker.into(),
            token.uses.to_string().into(),
            match token.max_uses {
                0 => "any".into(),
                most => most.to_string().into(),
            },
            match token.expire_time {
                None => "never".into(),
                end => text::print_time(end, session.now()).into(),
            },
            token.actor.as_str().into(),
        ]);
    }
    table
}
