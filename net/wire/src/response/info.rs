//! What is told of claim sets, subjects, tokens and clients.

use jeton_core::inspection::{ClaimsInfo, ClientInfo, Inspection, SubjectInfo};
use jeton_core::numbers::{ClaimsNo, ClientNo, SubjectNo};
use jeton_core::rights::Rights;
use jeton_core::time::{Millis, Seconds};
use jeton_core::token::TokenId;
use jeton_core::verdict::Verdict;

use crate::cursor::{Cursor, Put};
use crate::error::WireError;

pub(super) fn put_claims(into: &mut Vec<u8>, info: &ClaimsInfo) {
    into.extend_from_slice(&info.claims.0.to_le_bytes());
    into.put_text(&info.tenant);
    into.put_text(&info.client);
    into.push(u8::from(info.revoked));
    into.put_bytes(&info.bytes);
}

pub(super) fn claims(cursor: &mut Cursor<'_>) -> Result<ClaimsInfo, WireError> {
    Ok(ClaimsInfo {
        claims: ClaimsNo(cursor.u32()?),
        tenant: cursor.text()?.to_owned(),
        client: cursor.text()?.to_owned(),
        revoked: flag(cursor)?,
        bytes: cursor.bytes()?.to_vec(),
    })
}

pub(super) fn put_subject(into: &mut Vec<u8>, info: &SubjectInfo) {
    into.extend_from_slice(&info.subject.0.to_le_bytes());
    into.put_text(&info.tenant);
    into.put_optional(info.name.as_deref(), |into, name| into.put_text(name));
}

pub(super) fn subject(cursor: &mut Cursor<'_>) -> Result<SubjectInfo, WireError> {
    Ok(SubjectInfo {
        subject: SubjectNo(cursor.u32()?),
        tenant: cursor.text()?.to_owned(),
        name: optional_text(cursor)?,
    })
}

pub(super) fn put_inspection(into: &mut Vec<u8>, info: &Inspection) {
    into.extend_from_slice(&info.id.0);
    into.push(info.verdict.code());
    into.put_text(&info.tenant);
    into.put_optional(info.subject.as_deref(), |into, name| into.put_text(name));
    into.extend_from_slice(&info.subject_no.0.to_le_bytes());
    into.put_text(&info.client);
    into.extend_from_slice(&info.claims.0.to_le_bytes());
    into.extend_from_slice(&info.issued.0.to_le_bytes());
    into.extend_from_slice(&info.not_before.0.to_le_bytes());
    into.extend_from_slice(&info.expires.0.to_le_bytes());
    into.put_optional(info.renewable_until, |into, until| into.extend_from_slice(&until.0.to_le_bytes()));
    into.put_optional(info.uses, |into, (max, left)| {
        into.extend_from_slice(&max.to_le_bytes());
        into.extend_from_slice(&left.to_le_bytes());
    });
    into.put_optional(info.family, |into, root| into.extend_from_slice(&root.0));
    into.push(u8::from(info.bound));
}

pub(super) fn inspection(cursor: &mut Cursor<'_>) -> Result<Inspection, WireError> {
    Ok(Inspection {
        id: TokenId(cursor.array()?),
        verdict: Verdict::from_code(cursor.u8()?).ok_or(WireError::Invalid("a verdict"))?,
        tenant: cursor.text()?.to_owned(),
        subject: optional_text(cursor)?,
        subject_no: SubjectNo(cursor.u32()?),
        client: cursor.text()?.to_owned(),
        claims: ClaimsNo(cursor.u32()?),
        issued: Seconds(cursor.u32()?),
        not_before: Millis(cursor.u64()?),
        expires: Seconds(cursor.u32()?),
        renewable_until: cursor.optional(|cursor| cursor.u32().map(Seconds))?,
        uses: cursor.optional(|cursor| Ok((cursor.u32()?, cursor.u32()?)))?,
        family: cursor.optional(|cursor| cursor.array().map(TokenId))?,
        bound: flag(cursor)?,
    })
}

/// Clients behind their count.
pub(super) fn put_clients(clients: &[ClientInfo], into: &mut Vec<u8>) {
    into.extend_from_slice(&(clients.len() as u32).to_le_bytes());
    for client in clients {
        into.extend_from_slice(&client.client.0.to_le_bytes());
        into.put_text(&client.name);
        into.extend_from_slice(&(client.rights.len() as u32).to_le_bytes());
        for (tenant, rights) in &client.rights {
            into.put_text(tenant);
            into.push(rights.bits());
        }
    }
}

pub(super) fn clients(cursor: &mut Cursor<'_>) -> Result<Vec<ClientInfo>, WireError> {
    let count = cursor.u32()?;
    (0..count)
        .map(|_| {
            let client = ClientNo(cursor.u32()?);
            let name = cursor.text()?.to_owned();
            let tenants = cursor.u32()?;
            let rights = (0..tenants)
                .map(|_| {
                    let tenant = cursor.text()?.to_owned();
                    let rights = Rights::from_bits(cursor.u8()?).ok_or(WireError::Invalid("rights"))?;
                    Ok((tenant, rights))
                })
                .collect::<Result<_, WireError>>()?;
            Ok(ClientInfo { client, name, rights })
        })
        .collect()
}

fn optional_text(cursor: &mut Cursor<'_>) -> Result<Option<String>, WireError> {
    cursor.optional(|cursor| cursor.text().map(str::to_owned))
}

fn flag(cursor: &mut Cursor<'_>) -> Result<bool, WireError> {
    match cursor.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Invalid("a flag")),
    }
}
