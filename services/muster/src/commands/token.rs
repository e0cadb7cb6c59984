//! `muster token`: what lets machines join.

use muster_proto::workers::v1::{
    CreateJoinTokenRequest, ListJoinTokensRequest, RevokeJoinTokenRequest,
};

use crate::{
    args::Token,
    failure::Failure,
    output::table::Table,
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
    let request = ListJoinTokensRequest {
        page_size: 1000,
        ..Default::default()
    };
    let answer = session
        .call(
            Component::Registry,
            session.workers().list_join_tokens(request),
        )
        .await?;
    if session.print_message(&answer)? {
        return Ok(());
    }
    let mut table = Table::new(&["ID", "WORKER", ">USES", ">MOST", "ENDS (UTC)", "BY"]);
    for token in &answer.join_tokens {
        let worker = if token.worker_name.is_empty() {
            "any"
        } else {
            &token.worker_name
        };
        table.row(vec![
            token.id.as_str().into(),
            worker.into(),
            token.uses.to_string().into(),
            token.max_uses.to_string().into(),
            text::print_time(token.expire_time, session.now()).into(),
            token.actor.as_str().into(),
        ]);
    }
    session.print_table(&table)
}
