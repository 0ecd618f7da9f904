-- Each query must return no rows. A row is the subject of a violation, as text; rows come in a stable order.
-- One query begins with "-- number name: statement" and ends with a semicolon. What is marked (deep) reads everything that was
-- ever signed or journalled, which can only have changed by force: `settlement verify` and the daily audit run it, payouts
-- don't wait for it. docs/reference/invariants.md says where every invariant is held. Each query is a view of schema `audit`.

-- I01 entry_balances: every journal entry sums to zero in every asset
SELECT 'journal entry ' || p.entry_seq FROM posting p JOIN account a ON a.no = p.account_no
GROUP BY p.entry_seq, a.asset HAVING sum(p.amount) <> 0 ORDER BY p.entry_seq;

-- I01b entry_has_postings (deep): every posting belongs to an entry, and to an account
SELECT 'journal entry ' || p.entry_seq FROM posting p
LEFT JOIN journal_entry e ON e.seq = p.entry_seq LEFT JOIN account a ON a.no = p.account_no
WHERE e.seq IS NULL OR a.no IS NULL ORDER BY p.entry_seq;

-- I01c postings_are_payload (deep): the postings are those of the hashed payload
WITH said AS (
    SELECT e.seq, l.leg - 1 AS leg, l.value ->> 0 AS account, l.value ->> 1 AS asset, (l.value ->> 2)::bigint AS amount
    FROM journal_entry e
    CROSS JOIN LATERAL jsonb_array_elements(convert_from(e.payload, 'UTF8')::jsonb -> 'postings')
        WITH ORDINALITY AS l(value, leg)
), kept AS (
    SELECT p.entry_seq AS seq, p.leg, a.id AS account, a.asset, p.amount
    FROM posting p JOIN account a ON a.no = p.account_no
)
SELECT 'journal entry ' || coalesce(said.seq, kept.seq)
FROM said FULL JOIN kept ON kept.seq = said.seq AND kept.leg = said.leg
WHERE (said.account, said.asset, said.amount) IS DISTINCT FROM (kept.account, kept.asset, kept.amount)
ORDER BY coalesce(said.seq, kept.seq);

-- I02 book_balances: the whole book sums to zero in every asset
SELECT a.asset FROM posting p JOIN account a ON a.no = p.account_no GROUP BY a.asset HAVING sum(p.amount) <> 0
ORDER BY a.asset;

-- I03 balance_is_postings: an account's balance is the sum of its postings
SELECT a.id FROM account a LEFT JOIN posting p ON p.account_no = a.no
GROUP BY a.id, a.settled HAVING a.settled <> coalesce(sum(p.amount), 0) ORDER BY a.id;

-- I03b balance_floor: nobody's available balance is below zero but our own side's
SELECT id FROM account
WHERE held < 0 OR (settled < held AND kind NOT IN ('treasury', 'conversion', 'fees', 'equity', 'fx')) ORDER BY id;

-- I03c held_is_holds: what an account holds is what its open holds reserve
SELECT a.id FROM account a LEFT JOIN hold h ON h.consumer_no = a.party_no AND h.state = 'open'
GROUP BY a.id, a.held HAVING a.held <> coalesce(sum(h.amount - h.captured - h.released), 0) ORDER BY a.id;

-- I04 hold_amount (deep): a hold reserves something
SELECT id FROM hold WHERE amount <= 0 ORDER BY id;

-- I05 hold_parts (deep): what was taken and given back is never more than the hold, and all of it once it has ended
SELECT id FROM hold
WHERE captured < 0 OR released < 0 OR late < 0 OR captured + released > amount OR captured + late > amount
   OR (state <> 'open' AND captured + released <> amount) OR (state = 'open') <> (ended_at IS NULL)
   OR (state = 'captured') <> (uses = requests AND late = 0) ORDER BY id;

-- I05b hold_captures (deep): a hold was used by its captures, and gave what they took
SELECT coalesce(h.id, c.hold_id) FROM hold h FULL JOIN (
    SELECT hold_id, count(*) AS uses, sum(taken) FILTER (WHERE NOT late) AS captured, sum(taken) FILTER (WHERE late) AS late
    FROM hold_capture GROUP BY hold_id
) c ON c.hold_id = h.id
WHERE h.uses IS DISTINCT FROM coalesce(c.uses, 0) OR h.captured <> coalesce(c.captured, 0)
   OR h.late <> coalesce(c.late, 0) ORDER BY 1;

-- I05c capture_is_charge (deep): a capture takes its record's charge, rounded up, of a hold for it
SELECT c.hold_id FROM hold_capture c
LEFT JOIN usage_record u ON u.report_no = c.report_no AND u.line = c.line
LEFT JOIN hold h ON h.id = c.hold_id
WHERE (u.id IS NULL OR c.taken <> div(u.charge_pico + 999999, 1000000) OR u.charge_pico > c.bound::numeric * 1000000
   OR (h.provider_no, h.consumer_no, h.rates_version) IS DISTINCT FROM (u.provider_no, u.consumer_no, u.rates_version))
  AND NOT EXISTS (SELECT FROM retired_report r WHERE r.report_no = c.report_no)
ORDER BY 1;

-- I05d budget_uses (deep): what counts in a budget is what its holds of that day or month keep or took
SELECT 'budget ' || coalesce(u.budget_no, w.no) || ' ' || coalesce(u.period, w.period) FROM budget_use u FULL JOIN (
    SELECT n.no, p.period,
           sum(CASE WHEN h.state = 'open' THEN h.amount ELSE h.captured + h.late END) AS used
    FROM hold h JOIN budget leaf ON leaf.no = h.budget_no
    CROSS JOIN LATERAL unnest(leaf.path || leaf.no) AS n(no)
    CROSS JOIN LATERAL (VALUES (to_char(h.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
                               (to_char(h.created_at AT TIME ZONE 'UTC', 'YYYY-MM'))) AS p(period)
    GROUP BY n.no, p.period
) w ON w.no = u.budget_no AND w.period = u.period
WHERE coalesce(u.used, 0) <> coalesce(w.used, 0) ORDER BY 1;

-- I06 entry_once: a subject has one entry of a kind
SELECT kind || ' ' || subject FROM journal_entry GROUP BY kind, subject HAVING count(*) > 1 ORDER BY 1;

-- I06b report_has_entry (deep): every usage report has its entry and every usage entry its report
SELECT coalesce(r.id, e.subject) FROM usage_report r
FULL JOIN (SELECT seq, subject, window_no FROM journal_entry WHERE kind = 'usage') e
    ON e.subject = r.id AND e.seq = r.journal_seq AND e.window_no = r.window_no
WHERE r.id IS NULL OR e.subject IS NULL ORDER BY 1;

-- I06c record_once (deep): a provider's record is charged once
SELECT id::text FROM usage_record GROUP BY id, provider_no HAVING count(*) > 1 ORDER BY 1;

-- I06d records_are_accepted (deep): a report has as many records as it accepted, in its window, of its provider
SELECT r.id FROM usage_report r LEFT JOIN usage_record u
    ON u.report_no = r.no AND u.provider_no = r.provider_no AND u.window_no = r.window_no
WHERE r.window_no NOT IN (SELECT window_no FROM retention)
GROUP BY r.id, r.accepted HAVING count(u.id) <> r.accepted ORDER BY r.id;

-- I06e record_has_report (deep): no record is without its report
SELECT u.id::text FROM usage_record u LEFT JOIN usage_report r
    ON r.no = u.report_no AND r.provider_no = u.provider_no AND r.window_no = u.window_no
WHERE r.no IS NULL ORDER BY 1;

-- I06f report_total (deep): what a report posted is what its entry gives the provider
SELECT r.id FROM usage_report r
JOIN account a ON a.party_no = r.provider_no
LEFT JOIN posting p ON p.entry_seq = r.journal_seq AND p.account_no = a.no
GROUP BY r.id, r.total HAVING r.total <> coalesce(sum(p.amount), 0) ORDER BY r.id;

-- I06g retired_whole: what has left the database had a record for each that was accepted, and left with every body
SELECT 'window ' || coalesce(t.window_no, r.window_no) FROM retention t FULL JOIN (
    SELECT r.window_no, count(*) AS reports, sum(accepted) AS records, count(*) FILTER (WHERE octet_length(body) > 0) AS bodies,
           count(f.report_no) AS known, count(*) FILTER (WHERE accepted > 0) AS charged
    FROM usage_report r LEFT JOIN retired_report f ON f.report_no = r.no GROUP BY r.window_no
) r ON r.window_no = t.window_no
WHERE CASE WHEN t.window_no IS NULL THEN r.bodies <> r.reports OR r.known > 0
    ELSE (t.reports, t.records, 0, coalesce(r.charged, 0))
        IS DISTINCT FROM (coalesce(r.reports, 0), coalesce(r.records, 0), coalesce(r.bodies, 0), coalesce(r.known, 0)) END
ORDER BY 1;

-- I07 reply_once: a repeated request has one stored reply
SELECT principal || ' ' || route || ' ' || key FROM idempotency_key
GROUP BY principal, route, key HAVING count(*) > 1 ORDER BY 1;

-- I08 rate_in_force (deep): a record is rated by the table in force at its time, or when the hold was made that it names
SELECT u.id::text FROM usage_record u
LEFT JOIN hold_capture c ON c.report_no = u.report_no AND c.line = u.line
LEFT JOIN hold h ON h.id = c.hold_id
LEFT JOIN (
    SELECT version, effective_from, lead(effective_from) OVER (ORDER BY effective_from) AS until FROM rate_table
) t ON t.version = u.rates_version
WHERE t.version IS NULL OR coalesce(h.created_at, u.at) < t.effective_from OR coalesce(h.created_at, u.at) >= t.until
ORDER BY 1;

-- I08b hold_demand (deep): a hold has the multiplier of the step of demand in force when it was made
SELECT h.id FROM hold h JOIN party p ON p.no = h.provider_no
LEFT JOIN (
    SELECT effective_from, least(until, lead(effective_from) OVER (ORDER BY effective_from)) AS until,
           convert_from(document, 'UTF8')::jsonb -> 'providers' AS providers
    FROM demand
) d ON d.effective_from <= h.created_at AND h.created_at < d.until
WHERE h.demand <> coalesce(((d.providers -> p.id ->> 'multiplier')::numeric * 10000)::int, 10000) ORDER BY 1;

-- I08c demand_booked: steps of demand are numbered without gaps, and their entries state their digests
SELECT coalesce('demand ' || d.number, e.subject) FROM (SELECT *, row_number() OVER (ORDER BY number) AS place FROM demand) d
FULL JOIN (SELECT * FROM journal_entry WHERE kind = 'demand') e ON e.seq = d.journal_seq
WHERE d.number IS NULL OR d.number <> d.place OR e.seq IS NULL OR e.subject <> 'dem_' || d.number
   OR convert_from(e.payload, 'UTF8')::jsonb -> 'facts' ->> 'digest' <> 'sha256:' || encode(d.digest, 'hex') ORDER BY 1;

-- I09 rate_versions: versions are contiguous, each in force later than the last, never published after that time
SELECT 'rate table ' || version FROM (
    SELECT version, effective_from, published_at, row_number() OVER w AS place, lag(effective_from) OVER w AS before
    FROM rate_table WINDOW w AS (ORDER BY version)
) t WHERE version <> place OR effective_from <= before OR (version > 1 AND published_at > effective_from) ORDER BY version;

-- I09b signed: every governed document is signed
SELECT 'rate table ' || version FROM rate_table WHERE jsonb_array_length(signatures) < 1
UNION ALL SELECT 'policy ' || version FROM policy WHERE jsonb_array_length(signatures) < 1 ORDER BY 1;

-- I09c digests: stored digests are those of the stored bytes
SELECT 'rate table ' || version FROM rate_table WHERE digest <> sha256(document)
UNION ALL SELECT 'policy ' || version FROM policy WHERE digest <> sha256(document)
UNION ALL SELECT 'checkpoint ' || window_no FROM checkpoint WHERE digest <> sha256(document) ORDER BY 1;

-- I10 payout_once: a payout is planned once, and settled or failed once at most, as its state says
SELECT p.id FROM payout p LEFT JOIN journal_entry e ON e.subject = p.id AND e.kind IN (
    'payout_planned', 'payout_settled', 'payout_failed', 'withdrawal_planned', 'withdrawal_settled',
    'withdrawal_failed', 'refund_planned', 'refund_settled', 'refund_failed')
GROUP BY p.id, p.kind, p.state
HAVING count(*) FILTER (WHERE split_part(e.kind, '_', 1) <> CASE p.kind WHEN 'earnings' THEN 'payout' ELSE p.kind END) > 0
    OR count(*) FILTER (WHERE split_part(e.kind, '_', 2) = 'planned') <> 1
    OR count(*) FILTER (WHERE split_part(e.kind, '_', 2) = 'settled') <> (p.state = 'settled')::int
    OR count(*) FILTER (WHERE split_part(e.kind, '_', 2) = 'failed') <> (p.state = 'failed')::int ORDER BY p.id;

-- I10d withdrawal_fee: a withdrawal's fee is booked once, given back once if it fails, and nobody else pays one
SELECT coalesce(p.id, e.subject) FROM (SELECT * FROM payout WHERE fee > 0) p
FULL JOIN (
    SELECT e.subject, e.kind, l.amount FROM journal_entry e
    LEFT JOIN posting l ON l.entry_seq = e.seq LEFT JOIN account a ON a.no = l.account_no
    WHERE e.kind IN ('withdrawal_fee', 'withdrawal_fee_returned') AND a.kind = 'fees'
) e ON e.subject = p.id
GROUP BY p.id, e.subject, p.fee, p.state
HAVING p.id IS NULL OR count(*) FILTER (WHERE e.kind = 'withdrawal_fee' AND e.amount = p.fee) <> 1
    OR count(*) FILTER (WHERE e.kind = 'withdrawal_fee_returned' AND e.amount = -p.fee) <> (p.state = 'failed')::int
    OR count(*) > 2 ORDER BY 1;

-- I10e refund_once: a deposit goes back once, all of it, to its sender, and only out of suspense
SELECT coalesce(max(p.id), d.id) FROM payout p LEFT JOIN deposit d ON d.id = p.deposit_id
WHERE p.kind = 'refund' AND p.state <> 'failed'
GROUP BY d.id, d.party_no, d.amount, d.sender, d.chain, d.asset
HAVING d.id IS NULL OR count(*) > 1 OR d.party_no IS NOT NULL OR min(p.amount) <> d.amount OR min(p.address) <> d.sender
    OR min(p.chain) <> d.chain OR min(p.asset) <> d.asset ORDER BY 1;

-- I10b payout_order: a payout is settled in a settled order; a settled order leaves none of its payouts open
SELECT p.id FROM payout p LEFT JOIN chain_order o ON o.id = p.order_id
WHERE (p.state = 'settled' AND o.state IS DISTINCT FROM 'settled')
   OR (o.state = 'settled' AND p.state NOT IN ('settled', 'failed'))
   OR (p.state = 'planned') <> (p.order_id IS NULL AND p.state NOT IN ('settled', 'failed'))
   OR o.chain <> p.chain OR o.window_no <> p.window_no OR o.kind <> 'payout' ORDER BY p.id;

-- I10c payout_is_position: planned windows pay exactly what their positions say
SELECT 'window ' || coalesce(s.window_no, p.window_no) || ' ' || coalesce(s.party, p.party)
FROM (
    SELECT s.* FROM position s JOIN "window" w ON w.no = s.window_no WHERE s.payout > 0 AND w.state = 'planned'
) s FULL JOIN (
    SELECT o.*, q.id AS party FROM payout o JOIN party q ON q.no = o.party_no WHERE o.kind = 'earnings'
) p ON p.window_no = s.window_no AND p.party = s.party
WHERE (s.chain, s.asset, s.amount, s.payout) IS DISTINCT FROM (p.chain, p.asset, p.amount, p.micro) ORDER BY 1;

-- I11 attempts_numbered: attempts are numbered from 1 without gaps, as many as the order says
SELECT o.id FROM chain_order o LEFT JOIN attempt a ON a.order_id = o.id
GROUP BY o.id, o.attempts HAVING count(a.n) <> o.attempts OR coalesce(max(a.n), 0) <> o.attempts ORDER BY o.id;

-- I11b slot_pinned: all attempts of an order use its one slot
SELECT o.id FROM chain_order o JOIN attempt a ON a.order_id = o.id
GROUP BY o.id, o.slot_account, o.slot_kind, o.slot_number
HAVING count(DISTINCT (a.slot_account, a.slot_kind, a.slot_number)) > 1
    OR (o.slot_account IS NOT NULL AND bool_or(
        (a.slot_account, a.slot_kind, a.slot_number) IS DISTINCT FROM (o.slot_account, o.slot_kind, o.slot_number)))
ORDER BY o.id;

-- I11c transaction_once: a transaction id belongs to one attempt, aliases included
SELECT t.tx FROM (
    SELECT order_id, n, tx_id AS tx FROM attempt UNION SELECT order_id, n, unnest(aliases) FROM attempt
) t GROUP BY t.tx HAVING count(*) > 1 ORDER BY t.tx;

-- I11d slot_once: a slot belongs to one order
SELECT chain || ' ' || slot_account || ' ' || slot_number FROM chain_order WHERE slot_account IS NOT NULL
GROUP BY chain, slot_account, slot_kind, slot_number HAVING count(*) > 1 ORDER BY 1;

-- I11e order_settles_once: an order settles once, by one of its attempts, in a ledger that this attempt allows
SELECT o.id FROM chain_order o
LEFT JOIN attempt a ON a.order_id = o.id AND a.tx_id = o.tx_id
LEFT JOIN (SELECT order_id, count(*) AS times FROM attempt_event WHERE state = 'settled' GROUP BY order_id) e
    ON e.order_id = o.id
WHERE coalesce(e.times, 0) <> (o.state = 'settled')::int
   OR (o.state = 'settled' AND (a.n IS NULL OR o.ledger IS NULL OR o.ledger NOT BETWEEN a.first AND a.last)) ORDER BY o.id;

-- I11f fee_booked: what a chain took for an order is booked, once, and not above what was signed
SELECT o.id FROM chain_order o
LEFT JOIN (
    SELECT e.subject, sum(p.amount) FILTER (WHERE a.kind = 'treasury') AS fee
    FROM journal_entry e JOIN posting p ON p.entry_seq = e.seq JOIN account a ON a.no = p.account_no
    WHERE e.kind = 'chain_fee' GROUP BY e.subject
) f ON f.subject = o.id
LEFT JOIN attempt t ON t.order_id = o.id AND t.tx_id = o.tx_id
WHERE o.fee <> coalesce(f.fee, 0) OR o.fee > coalesce(t.fee, 0) ORDER BY o.id;

-- I13 covered: a window that was measured short is followed by a halt, or by one that was not
SELECT 'window ' || window_no FROM (SELECT * FROM solvency ORDER BY window_no DESC LIMIT 1) s
WHERE NOT covered AND NOT EXISTS (SELECT FROM halt WHERE code = 'assets_below_liabilities' AND cleared_at IS NULL);

-- I14 deposit_once: a payment is on record once
SELECT chain || ' ' || tx || ' ' || tx_index FROM deposit GROUP BY chain, tx, tx_index HAVING count(*) > 1 ORDER BY 1;

-- I14b deposit_credit: what was credited is the worth of what arrived, rounded down; nothing while in suspense
SELECT id FROM deposit
WHERE (party_no IS NULL) <> (micro_per_unit IS NULL)
   OR (party_no IS NULL AND credited <> 0)
   OR (party_no IS NOT NULL AND credited <> div(
        amount * split_part(micro_per_unit, '/', 1)::numeric,
        coalesce(nullif(split_part(micro_per_unit, '/', 2), ''), '1')::numeric))
   OR (party_no IS NOT NULL) <> EXISTS (
        SELECT FROM journal_entry e WHERE e.kind = 'deposit' AND e.subject IN (deposit.id, deposit.id || '/assigned'))
ORDER BY id;

-- I14c deposit_booked: every deposit has its entry, every such entry its deposit, and the entry posts that amount
SELECT coalesce(d.id, e.subject) FROM deposit d
FULL JOIN (
    SELECT seq, kind, subject, split_part(subject, '/', 1) AS id FROM journal_entry WHERE kind IN ('deposit', 'suspense')
) e ON e.id = d.id
LEFT JOIN posting p ON p.entry_seq = e.seq
LEFT JOIN account a ON a.no = p.account_no
GROUP BY d.id, e.subject, e.seq, e.kind, d.entry_seq, d.amount, d.credited
HAVING d.id IS NULL OR e.seq IS NULL
    OR (e.subject = d.id AND e.seq <> d.entry_seq)
    OR coalesce(sum(p.amount) FILTER (WHERE a.kind = 'treasury'), 0) <> CASE WHEN e.subject = d.id THEN -d.amount ELSE 0 END
    OR coalesce(sum(p.amount) FILTER (WHERE a.kind = 'consumer'), 0) <> CASE WHEN e.kind = 'deposit' THEN d.credited ELSE 0 END
ORDER BY 1;

-- I14d fixing_booked: fixings are numbered without gaps, their entries state their digests, no conversion follows a later one
SELECT coalesce('fixing ' || f.number, e.subject) FROM (SELECT *, row_number() OVER (ORDER BY number) AS place FROM fixing) f
FULL JOIN (SELECT * FROM journal_entry WHERE kind = 'fixing') e ON e.seq = f.journal_seq
WHERE f.number IS NULL OR f.number <> f.place OR (f.journal_seq IS NOT NULL) <> (e.seq IS NOT NULL)
   OR (e.seq IS NOT NULL AND (e.subject <> 'fix_' || f.number
       OR convert_from(e.payload, 'UTF8')::jsonb -> 'facts' ->> 'digest' <> 'sha256:' || encode(f.digest, 'hex')))
UNION ALL SELECT d.id FROM deposit d JOIN fixing f ON f.number = d.fixing
JOIN journal_entry e ON e.kind = 'deposit' AND e.subject IN (d.id, d.id || '/assigned') WHERE f.journal_seq IS NULL OR f.journal_seq > e.seq
UNION ALL SELECT p.id FROM payout p JOIN fixing f ON f.number = p.fixing
JOIN journal_entry e ON e.subject = p.id AND e.kind IN ('payout_planned', 'withdrawal_planned')
WHERE f.journal_seq IS NULL OR f.journal_seq > e.seq ORDER BY 1;

-- I15 journal_chain (deep): the journal is gapless from 1 and every entry hashes its predecessor
SELECT 'journal entry ' || seq FROM (
    SELECT seq, previous, hash, payload, row_number() OVER w AS place, lag(hash) OVER w AS before
    FROM journal_entry WINDOW w AS (ORDER BY seq)
) j
WHERE seq <> place OR previous <> coalesce(before, decode(repeat('00', 32), 'hex'))
   OR hash <> sha256('CUJ1'::bytea || int8send(seq) || previous || int4send(length(payload)) || payload) ORDER BY seq;

-- I15b journal_head: the head is the last entry
SELECT 'journal head ' || h.seq FROM journal_head h
WHERE h.seq <> (SELECT count(*) FROM journal_entry)
   OR h.hash <> coalesce((SELECT hash FROM journal_entry ORDER BY seq DESC LIMIT 1), decode(repeat('00', 32), 'hex'));

-- I15c journal_columns (deep): an entry's columns are those of its hashed payload
SELECT 'journal entry ' || seq FROM (SELECT *, convert_from(payload, 'UTF8')::jsonb AS said FROM journal_entry) e
WHERE said ->> 'kind' <> kind OR said ->> 'subject' <> subject OR (said ->> 'window')::int <> window_no
   OR (said ->> 'at')::timestamptz <> at ORDER BY seq;

-- I16 tree_size: the record tree grows by the records of each window
SELECT 'checkpoint ' || window_no FROM (
    SELECT c.window_no, c.tree_size - coalesce(lag(c.tree_size) OVER (ORDER BY c.window_no), 0) AS grown,
           coalesce(o.records, 0) AS records, c.window_no <> row_number() OVER (ORDER BY c.window_no) AS gap
    FROM checkpoint c
    LEFT JOIN (SELECT window_no, sum(records) AS records FROM obligation GROUP BY window_no) o ON o.window_no = c.window_no
) t WHERE grown <> records OR gap ORDER BY window_no;

-- I16c tree_marks (deep): marks say how many leaves of their window come before a report, one for each tile's width
SELECT 'window ' || coalesce(m.window_no, r.window_no) || ' journal entry ' || coalesce(m.journal_seq, r.journal_seq)
FROM tree_mark m FULL JOIN (
    SELECT window_no, journal_seq, leaves, lag(leaves) OVER w AS earlier FROM (
        SELECT r.window_no, r.journal_seq,
               sum(r.accepted) OVER (PARTITION BY r.window_no ORDER BY r.journal_seq) - r.accepted AS leaves
        FROM usage_report r JOIN checkpoint c ON c.window_no = r.window_no WHERE r.accepted > 0
    ) l WINDOW w AS (PARTITION BY window_no ORDER BY journal_seq)
) r ON r.window_no = m.window_no AND r.journal_seq = m.journal_seq
WHERE (m.leaves IS NOT NULL) <> coalesce(r.leaves / 256 > r.earlier / 256, false) OR m.leaves <> r.leaves ORDER BY 1;

-- I16b anchored: a window is anchored when, and not before, one of its anchors has settled with its checkpoint's digest
SELECT 'window ' || w.no FROM "window" w
LEFT JOIN checkpoint c ON c.window_no = w.no
LEFT JOIN chain_order o ON o.window_no = w.no AND o.kind = 'anchor'
GROUP BY w.no, w.anchored_at
HAVING (w.anchored_at IS NOT NULL) <> coalesce(bool_or(o.state = 'settled'), false)
    OR bool_or(o.id IS NOT NULL AND o.digest IS DISTINCT FROM c.digest) ORDER BY w.no;

-- I17 liabilities_total (deep): what a checkpoint says was owed is the sum of the postings up to its entry
SELECT 'checkpoint ' || window_no FROM (
    SELECT window_no, said, sum(moved) OVER (ORDER BY seq, window_no NULLS FIRST) AS owed FROM (
        SELECT p.entry_seq AS seq, NULL::int AS window_no, NULL::numeric AS said, sum(p.amount) AS moved
        FROM posting p JOIN account a ON a.no = p.account_no
        WHERE a.kind IN ('consumer', 'provider', 'transit') GROUP BY p.entry_seq
        UNION ALL
        SELECT (d -> 'journal' ->> 'seq')::bigint, window_no, (d -> 'liabilities' ->> 'total')::numeric, 0
        FROM (SELECT window_no, convert_from(document, 'UTF8')::jsonb AS d FROM checkpoint) c
    ) l
) t WHERE window_no IS NOT NULL AND said <> owed ORDER BY window_no;

-- I17b erased_salts: of a salt key that was erased, on request, there is a hash for each of its leaves
SELECT 'window ' || s.window_no || ' consumer ' || s.consumer_no FROM record_salt s
LEFT JOIN erasure e ON e.consumer_no = s.consumer_no
WHERE s.hashes IS NOT NULL AND (e.consumer_no IS NULL OR octet_length(s.hashes) IS DISTINCT FROM 32 * (
    SELECT sum(records) FROM obligation o WHERE o.window_no = s.window_no AND o.consumer_no = s.consumer_no)) ORDER BY 1;

-- I18 obligations_are_records (deep): what a pair owes is the sum of its records
SELECT 'window ' || coalesce(o.window_no, r.window_no) || ' provider ' || coalesce(o.provider_no, r.provider_no)
    || ' consumer ' || coalesce(o.consumer_no, r.consumer_no)
FROM (SELECT * FROM obligation WHERE window_no NOT IN (SELECT window_no FROM retention)) o FULL JOIN (
    SELECT window_no, provider_no, consumer_no, count(*) AS records, sum(charge_pico) AS pico
    FROM usage_record GROUP BY window_no, provider_no, consumer_no
) r USING (window_no, provider_no, consumer_no)
WHERE o.records IS DISTINCT FROM r.records OR o.pico IS DISTINCT FROM r.pico ORDER BY 1;

-- I18b carry_chain (deep): what a pair carries into a window is what it carried out of the one before, always below 1 microCU
SELECT 'provider ' || provider_no || ' consumer ' || consumer_no FROM (
    SELECT o.provider_no, o.consumer_no, o.carried_in, o.carried_in + o.pico - o.posted::numeric * 1000000 AS carried_out,
           lag(o.carried_in + o.pico - o.posted::numeric * 1000000) OVER w AS before
    FROM obligation o WINDOW w AS (PARTITION BY o.provider_no, o.consumer_no ORDER BY o.window_no)
) t
WHERE carried_in <> coalesce(before, 0) OR carried_out NOT BETWEEN 0 AND 999999 ORDER BY 1;

-- I18c obligations_are_posted: usage entries post what obligations say, window by window and party by party
SELECT 'window ' || coalesce(o.window_no, j.window_no) || ' party ' || coalesce(o.party_no, j.party_no) FROM (
    SELECT window_no, party_no, sum(amount) AS amount FROM (
        SELECT window_no, provider_no AS party_no, posted AS amount FROM obligation
        UNION ALL SELECT window_no, consumer_no, -posted FROM obligation
    ) l GROUP BY window_no, party_no HAVING sum(amount) <> 0
) o FULL JOIN (
    SELECT e.window_no, a.party_no, sum(p.amount) AS amount
    FROM journal_entry e JOIN posting p ON p.entry_seq = e.seq JOIN account a ON a.no = p.account_no
    WHERE e.kind = 'usage' GROUP BY e.window_no, a.party_no HAVING sum(p.amount) <> 0
) j ON j.window_no = o.window_no AND j.party_no = o.party_no
WHERE o.amount IS DISTINCT FROM j.amount ORDER BY 1;

-- I18d positions_net: a window's positions sum to zero and hold its obligations, nothing else
SELECT 'window ' || w.no FROM "window" w
LEFT JOIN (
    SELECT window_no, sum(spent) AS spent, sum(earned) AS earned, sum(net) AS net,
           bool_or(net <> earned - spent OR spent < 0 OR earned < 0 OR netted NOT BETWEEN 0 AND least(spent, earned)) AS wrong
    FROM position GROUP BY window_no
) s ON s.window_no = w.no
LEFT JOIN (SELECT window_no, sum(posted) AS posted FROM obligation GROUP BY window_no) o ON o.window_no = w.no
WHERE CASE WHEN w.state IN ('netted', 'checkpointed', 'planned')
    THEN coalesce(s.wrong, false) OR coalesce(s.net, 0) <> 0 OR coalesce(s.spent, 0) <> coalesce(o.posted, 0)
    ELSE s.window_no IS NOT NULL END ORDER BY w.no;

-- I18e netting_booked: what positions net is what the journal moved back, once
SELECT 'window ' || w.no FROM "window" w
LEFT JOIN (SELECT window_no, sum(netted) AS netted FROM position GROUP BY window_no) s ON s.window_no = w.no
LEFT JOIN (
    SELECT e.subject, sum(p.amount) AS moved FROM journal_entry e
    JOIN posting p ON p.entry_seq = e.seq JOIN account a ON a.no = p.account_no
    WHERE e.kind = 'netting' AND a.kind = 'consumer' GROUP BY e.subject
) j ON j.subject = 'win_' || w.no
WHERE coalesce(s.netted, 0) <> coalesce(j.moved, 0) ORDER BY w.no;

-- I18f netting_moment: a window has its netting entry as soon as it is netted, and not before
SELECT 'window ' || w.no FROM "window" w LEFT JOIN journal_entry e ON e.kind = 'netting' AND e.subject = 'win_' || w.no
WHERE (w.state IN ('netted', 'checkpointed', 'planned')) <> (e.seq IS NOT NULL) ORDER BY w.no;

-- I19 windows_contiguous: windows follow each other in number, time and journal, and one is open
SELECT 'window ' || no FROM (
    SELECT w.*, row_number() OVER o AS place, lag(last_seq) OVER o AS before, lag(closed_at) OVER o AS closed,
           lead(no) OVER o AS later
    FROM "window" w WINDOW o AS (ORDER BY no)
) t
WHERE no <> place OR first_seq <> coalesce(before, 0) + 1 OR opened_at IS DISTINCT FROM coalesce(closed, opened_at)
   OR last_seq < first_seq - 1 OR (later IS NULL) <> (state = 'open') OR (state = 'open') <> (last_seq IS NULL)
ORDER BY no;

-- I19b entry_in_window (deep): every entry is in the window that was open
SELECT 'journal entry ' || e.seq FROM journal_entry e LEFT JOIN "window" w
    ON w.no = e.window_no AND e.seq >= w.first_seq AND (w.last_seq IS NULL OR e.seq <= w.last_seq)
WHERE w.no IS NULL ORDER BY e.seq;

-- I19c steps_in_order: a window that is checkpointed has its checkpoint, and no later one is ahead of it
SELECT 'window ' || w.no FROM "window" w LEFT JOIN checkpoint c ON c.window_no = w.no
WHERE (c.window_no IS NOT NULL) <> (w.state IN ('checkpointed', 'planned')) ORDER BY w.no;

-- I21 integers_only: no column keeps an amount as a fraction
SELECT c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND (a.atttypid IN ('real'::regtype, 'double precision'::regtype, 'money'::regtype)
       OR (a.atttypid = 'numeric'::regtype AND (a.atttypmod = -1 OR (a.atttypmod - 4) & 65535 <> 0))) ORDER BY 1;

-- I23 signer_valid (deep): a report was signed by a key of its provider that was valid when it was received
SELECT r.id FROM usage_report r LEFT JOIN party_key k ON k.kid = r.kid AND k.party_no = r.provider_no
WHERE k.kid IS NULL OR r.received_at < k.valid_from OR r.received_at >= coalesce(k.revoked_at, 'infinity') ORDER BY r.id;

-- I23b report_chain: a provider's reports are numbered from 1 without gaps, up to its stream's head
SELECT 'provider ' || s.provider_no FROM provider_stream s LEFT JOIN usage_report r ON r.provider_no = s.provider_no
GROUP BY s.provider_no, s.seq, s.digest
HAVING count(r.no) <> s.seq OR coalesce(max(r.seq), 0) <> s.seq
    OR (s.seq > 0 AND s.digest IS DISTINCT FROM (
        SELECT l.digest FROM usage_report l WHERE l.provider_no = s.provider_no AND l.seq = s.seq)) ORDER BY 1;

-- I24 transit_is_open_payouts: what is in transit is what is planned and not yet settled or failed
SELECT 'transit/CU' WHERE (SELECT coalesce(sum(settled), 0) FROM account WHERE kind = 'transit' AND asset = 'CU')
    <> (SELECT coalesce(sum(micro), 0) FROM payout WHERE state IN ('planned', 'ordered'));

-- I24b suspense_is_deposits: what is in suspense is the deposits that belong to nobody yet and are not on their way back
SELECT coalesce(a.asset, d.asset) FROM (SELECT asset, sum(settled) AS amount FROM account WHERE kind = 'suspense' GROUP BY asset) a
FULL JOIN (
    SELECT chain || '/' || asset AS asset, sum(amount) AS amount FROM deposit WHERE party_no IS NULL
        AND NOT EXISTS (SELECT FROM payout p WHERE p.deposit_id = deposit.id AND p.state <> 'failed') GROUP BY 1
) d ON d.asset = a.asset
WHERE coalesce(a.amount, 0) <> coalesce(d.amount, 0) ORDER BY 1;

-- I24c transit_is_open_refunds: what of an asset is in transit is the refunds that are not settled or failed yet
SELECT coalesce(a.asset, r.asset) FROM (
    SELECT asset, sum(settled) AS amount FROM account WHERE kind = 'transit' AND asset <> 'CU' GROUP BY asset
) a FULL JOIN (
    SELECT chain || '/' || asset AS asset, sum(amount) AS amount FROM payout
    WHERE kind = 'refund' AND state IN ('planned', 'ordered') GROUP BY 1
) r ON r.asset = a.asset
WHERE coalesce(a.amount, 0) <> coalesce(r.amount, 0) ORDER BY 1;

-- I23c one_key_signs: the service's keys take over one after another, each by its journal entry, and the last one signs
SELECT 'service key ' || k.kid FROM (SELECT *, lead(kid) OVER (ORDER BY journal_seq) AS later FROM service_key) k
LEFT JOIN journal_entry e ON e.kind = 'service_key' AND e.subject = k.kid AND e.seq = k.journal_seq
CROSS JOIN journal_head h
WHERE (k.journal_seq > 0) <> (e.seq IS NOT NULL) OR (k.later IS NULL) <> (h.kid = k.kid) ORDER BY k.kid;

-- I27 dispute_bounds: a pair's disputes never award more than it posted for the window
SELECT 'win_' || d.window_no || ' provider ' || d.provider_no || ' consumer ' || d.consumer_no FROM (
    SELECT window_no, provider_no, consumer_no, sum(award) AS award FROM dispute GROUP BY 1, 2, 3
) d LEFT JOIN obligation o USING (window_no, provider_no, consumer_no)
WHERE d.award > coalesce(o.posted, 0) ORDER BY 1;

-- I27b dispute_once: a charge has one dispute that was not withdrawn
SELECT min(id) FROM dispute WHERE state <> 'withdrawn'
GROUP BY provider_no, record, CASE WHEN record IS NULL THEN consumer_no END, CASE WHEN record IS NULL THEN window_no END
HAVING count(*) > 1 ORDER BY 1;

-- I27c dispute_paid: what disputes gave back is what their entries post, and no entry is of no dispute
SELECT coalesce(d.id, j.id) FROM dispute d FULL JOIN (
    SELECT split_part(e.subject, '/', 1) AS id, count(DISTINCT e.seq) FILTER (WHERE e.kind = 'dispute_paid') AS payments,
           sum(p.amount) FILTER (WHERE a.kind = 'consumer') AS paid, sum(p.amount) FILTER (WHERE a.kind = 'fees') AS penalty
    FROM journal_entry e LEFT JOIN posting p ON p.entry_seq = e.seq LEFT JOIN account a ON a.no = p.account_no
    WHERE e.kind IN ('dispute_opened', 'dispute_answered', 'dispute_ruled', 'dispute_paid') GROUP BY 1
) j ON j.id = d.id
WHERE (d.paid, d.penalty_paid, d.payments) IS DISTINCT FROM (coalesce(j.paid, 0), coalesce(j.penalty, 0), j.payments)
ORDER BY 1;

-- I27d dispute_steps: a dispute was opened, answered and ended in the journal as it says
SELECT d.id FROM dispute d LEFT JOIN journal_entry e ON e.subject = d.id
GROUP BY d.no, d.id, d.answered_at, d.ended_at
HAVING count(*) FILTER (WHERE e.kind = 'dispute_opened') <> 1
    OR count(*) FILTER (WHERE e.kind = 'dispute_answered') <> (d.answered_at IS NOT NULL)::int
    OR count(*) FILTER (WHERE e.kind = 'dispute_ruled') <> (d.ended_at IS NOT NULL)::int ORDER BY 1;

-- I27e disputed_charge (deep): what is disputed is a charge of that provider to that consumer in that window
SELECT d.id FROM dispute d LEFT JOIN usage_record u ON u.id = d.record AND u.provider_no = d.provider_no
LEFT JOIN usage_report r ON r.no = u.report_no
WHERE d.record IS NOT NULL AND (d.consumer_no, d.window_no, d.charged, d.entry_seq)
    IS DISTINCT FROM (u.consumer_no, u.window_no, div(u.charge_pico, 1000000), r.journal_seq)
  AND d.window_no NOT IN (SELECT window_no FROM retention) ORDER BY 1;

-- I28 surcharge_noticed: a surcharge takes at most what is due, for a day that a notice before it covers
WITH said AS (
    SELECT seq, kind, subject, split_part(subject, '/', 1) AS consumer, convert_from(payload, 'UTF8')::jsonb -> 'facts' AS facts
    FROM journal_entry WHERE kind IN ('surcharge', 'surcharge_noticed')
)
SELECT s.subject FROM said s WHERE s.kind = 'surcharge' AND (NOT EXISTS (
    SELECT 1 FROM said n WHERE n.kind = 'surcharge_noticed' AND n.consumer = s.consumer AND n.seq < s.seq
    AND n.facts ->> 'since' <= s.facts ->> 'day' AND s.facts ->> 'day' < n.facts ->> 'until'
) OR coalesce((
    SELECT -sum(p.amount) FROM posting p JOIN account a ON a.no = p.account_no
    WHERE p.entry_seq = s.seq AND a.kind = 'consumer'), 0) NOT BETWEEN 1 AND (s.facts ->> 'due')::bigint) ORDER BY 1;
