-- One view per dataset, for a DuckDB that runs in the folder which holds the lake. Rendered: do not edit.
CREATE OR REPLACE VIEW "massive_option_trades" AS SELECT
  "ticker",
  "conditions",
  "correction",
  "exchange",
  "participant_timestamp",
  "price",
  "sip_timestamp",
  "size",
  "row",
  "extra",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/massive_option_trades/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "massive_option_quotes" AS SELECT
  "ticker",
  "ask_exchange",
  "ask_price",
  "ask_size",
  "bid_exchange",
  "bid_price",
  "bid_size",
  "sequence_number",
  "sip_timestamp",
  "row",
  "extra",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/massive_option_quotes/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "massive_option_minute" AS SELECT
  "ticker",
  "volume",
  "open",
  "close",
  "high",
  "low",
  "window_start",
  "transactions",
  "row",
  "extra",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/massive_option_minute/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "massive_option_day" AS SELECT
  "ticker",
  "volume",
  "open",
  "close",
  "high",
  "low",
  "window_start",
  "transactions",
  "row",
  "extra",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/massive_option_day/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "massive_stock_trades" AS SELECT
  "ticker",
  "conditions",
  "correction",
  "exchange",
  "id",
  "participant_timestamp",
  "price",
  "sequence_number",
  "sip_timestamp",
  "size",
  "tape",
  "trf_id",
  "trf_timestamp",
  "row",
  "extra",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/massive_stock_trades/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "massive_stock_minute" AS SELECT
  "ticker",
  "volume",
  "open",
  "close",
  "high",
  "low",
  "window_start",
  "transactions",
  "row",
  "extra",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/massive_stock_minute/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "massive_stock_day" AS SELECT
  "ticker",
  "volume",
  "open",
  "close",
  "high",
  "low",
  "window_start",
  "transactions",
  "row",
  "extra",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/massive_stock_day/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "cboe_snapshot" AS SELECT
  "underlying",
  "strike",
  "dte",
  "cp",
  "oi",
  "gamma",
  "delta",
  "iv",
  "bid",
  "ask",
  "spot",
  "captured_at",
  "row",
  "extra",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/cboe_snapshot/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "open_interest_file" AS SELECT
  "ticker",
  "open_interest",
  "row",
  "extra",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/open_interest_file/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "corporate_actions_file" AS SELECT
  "underlying",
  "ex_date",
  "kind",
  "ratio",
  "cash_amount_usd",
  "new_symbol",
  CAST("announced_at_utc" AS TIMESTAMPTZ) AS "announced_at_utc",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/corporate_actions_file/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "lean_events" AS SELECT
  "underlying",
  "ex_date",
  "kind",
  "ratio",
  "cash_amount_usd",
  "new_symbol",
  CAST("announced_at_utc" AS TIMESTAMPTZ) AS "announced_at_utc",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/lean_events/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "rates_file" AS SELECT
  "date",
  "tenor_days",
  "rate",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/rates_file/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "lean_interest_rate" AS SELECT
  "date",
  "rate_percent",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/lean_interest_rate/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "contract_roots_file" AS SELECT
  "root",
  "underlying",
  "multiplier",
  "exercise",
  "settlement",
  "valid_from",
  "valid_to",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/raw/contract_roots_file/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "sessions" AS SELECT
  "calendar",
  CAST("open_utc" AS TIMESTAMPTZ) AS "open_utc",
  CAST("close_utc" AS TIMESTAMPTZ) AS "close_utc",
  "is_half_day",
  "previous_session",
  "next_session",
  CAST("decision_utc" AS TIMESTAMPTZ) AS "decision_utc",
  CAST("actionable_utc" AS TIMESTAMPTZ) AS "actionable_utc",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/sessions/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "contracts" AS SELECT
  "contract",
  "underlying",
  "root",
  "expiry",
  "right",
  "strike",
  "strike_thousandths",
  "multiplier",
  "exercise",
  "settlement",
  "is_adjusted",
  "last_trading_session",
  CAST("expires_utc" AS TIMESTAMPTZ) AS "expires_utc",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/contracts/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "option_trades" AS SELECT
  "contract",
  "underlying",
  "root",
  "expiry",
  "right",
  "strike",
  CAST("ts_utc" AS TIMESTAMPTZ) AS "ts_utc",
  "price",
  "size",
  "premium_usd",
  "exchange",
  "condition",
  "conditions",
  "condition_group",
  "in_volume",
  "sets_price",
  "may_be_signed",
  "is_iso",
  "is_auction",
  "is_cross",
  "is_floor",
  "is_multi_leg",
  "is_stock_tied",
  "is_late",
  "is_cancelled",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/option_trades/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "option_bars_1m" AS SELECT
  "contract",
  "underlying",
  "root",
  "expiry",
  "right",
  "strike",
  CAST("ts_utc" AS TIMESTAMPTZ) AS "ts_utc",
  "open",
  "high",
  "low",
  "close",
  "volume",
  "transactions",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/option_bars_1m/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "option_bars_1d" AS SELECT
  "contract",
  "underlying",
  "root",
  "expiry",
  "right",
  "strike",
  "open",
  "high",
  "low",
  "close",
  "volume",
  "transactions",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/option_bars_1d/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "option_quotes_eod" AS SELECT
  "contract",
  "underlying",
  "root",
  "expiry",
  "right",
  "strike",
  CAST("ts_utc" AS TIMESTAMPTZ) AS "ts_utc",
  "bid",
  "ask",
  "bid_size",
  "ask_size",
  "spot",
  "vendor_iv",
  "vendor_delta",
  "vendor_gamma",
  "root_is_inferred",
  "source",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/option_quotes_eod/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "open_interest" AS SELECT
  "contract",
  "underlying",
  "root",
  "expiry",
  "right",
  "strike",
  "oi_session",
  "open_interest_close",
  "root_is_inferred",
  "source",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/open_interest/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "equity_bars_1m" AS SELECT
  "underlying",
  CAST("ts_utc" AS TIMESTAMPTZ) AS "ts_utc",
  "open",
  "high",
  "low",
  "close",
  "volume",
  "transactions",
  "is_regular",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/equity_bars_1m/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "equity_bars_1d" AS SELECT
  "underlying",
  "open",
  "high",
  "low",
  "close",
  "volume",
  "transactions",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/equity_bars_1d/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "corporate_actions" AS SELECT
  "underlying",
  "ex_date",
  "kind",
  "ratio",
  "cash_amount_usd",
  "new_symbol",
  CAST("announced_at_utc" AS TIMESTAMPTZ) AS "announced_at_utc",
  "source",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/corporate_actions/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "rates" AS SELECT
  "date",
  "tenor_days",
  "rate",
  "source",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/curated/rates/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "option_iv" AS SELECT
  "contract",
  "underlying",
  "root",
  "expiry",
  "right",
  "strike",
  "exercise",
  "iv",
  "spot",
  "spot_source",
  "forward",
  "forward_source",
  "discount",
  "rate_source",
  "years",
  "price",
  "price_source",
  CAST("ts_utc" AS TIMESTAMPTZ) AS "ts_utc",
  "delta",
  "gamma",
  "vega",
  "theta",
  "vendor_iv",
  "volume",
  "quality",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/derived/option_iv/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "daily_factors" AS SELECT
  "underlying",
  "spot_close",
  "spot_source",
  "option_volume",
  "call_volume",
  "put_volume",
  "option_trade_count",
  "premium_usd",
  "call_premium_usd",
  "put_premium_usd",
  "put_call_volume_ratio",
  "option_to_stock_volume",
  "stock_volume",
  "otm_short_call_volume",
  "otm_short_put_volume",
  "otm_short_call_premium_usd",
  "otm_short_put_premium_usd",
  "swept_otm_call_volume",
  "swept_otm_put_volume",
  "largest_contract_sweep_volume",
  "swept_opening_call_volume",
  "swept_opening_put_volume",
  "iso_share",
  "multi_leg_share",
  "auction_share",
  "largest_print_premium_usd",
  "contracts_traded",
  "atm_iv_30d",
  "skew_25d",
  "gamma_exposure_usd",
  "gamma_exposure_oi",
  "gamma_traded_usd",
  "open_interest_close",
  "open_interest_open",
  "not_available",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/derived/daily_factors/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "factor_panel" AS SELECT
  "underlying",
  "spot_close",
  "spot_source",
  "option_volume",
  "call_volume",
  "put_volume",
  "premium_usd",
  "call_premium_usd",
  "put_premium_usd",
  "put_call_volume_ratio",
  "option_to_stock_volume",
  "otm_short_call_volume",
  "otm_short_put_volume",
  "otm_short_call_premium_usd",
  "otm_short_put_premium_usd",
  "swept_otm_call_volume",
  "swept_otm_put_volume",
  "largest_contract_sweep_volume",
  "swept_opening_call_volume",
  "swept_opening_put_volume",
  "iso_share",
  "multi_leg_share",
  "auction_share",
  "largest_print_premium_usd",
  "contracts_traded",
  "atm_iv_30d",
  "skew_25d",
  "gamma_exposure_usd",
  "gamma_exposure_oi",
  "gamma_traded_usd",
  "open_interest_close",
  "open_interest_open",
  "log_return",
  "realized_vol_20d",
  "iv_minus_rv",
  "open_interest_change",
  "oi_change_ratio",
  "repeated_sweep_call_volume",
  "repeated_sweep_put_volume",
  "repeated_opening_call_volume",
  "repeated_opening_put_volume",
  "option_volume_z",
  "premium_usd_z",
  "put_call_volume_ratio_z",
  "option_to_stock_volume_z",
  "otm_short_call_premium_usd_z",
  "otm_short_put_premium_usd_z",
  "swept_otm_call_volume_z",
  "swept_otm_put_volume_z",
  "largest_contract_sweep_volume_z",
  "swept_opening_call_volume_z",
  "swept_opening_put_volume_z",
  "repeated_sweep_call_volume_z",
  "repeated_sweep_put_volume_z",
  "repeated_opening_call_volume_z",
  "repeated_opening_put_volume_z",
  "iso_share_z",
  "largest_print_premium_usd_z",
  "atm_iv_30d_z",
  "skew_25d_z",
  "gamma_exposure_usd_z",
  "open_interest_change_z",
  "atm_iv_30d_percentile",
  "history_sessions",
  "not_available",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/derived/factor_panel/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "models" AS SELECT
  "model",
  "purpose",
  "fitted_session",
  "training_first_session",
  "training_last_session",
  "training_sessions",
  "training_rows",
  "training_hash",
  "features",
  "hyper_parameters",
  "parameters",
  "is_fitted",
  "reason",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/derived/models/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "regimes" AS SELECT
  "scope",
  "regime",
  "probability",
  "probability_calm",
  "probability_normal",
  "probability_stressed",
  "kmeans_regime",
  "agrees",
  "market_return",
  "market_volatility",
  "sessions_filtered",
  "model_session",
  "reason",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/derived/regimes/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "anomaly_scores" AS SELECT
  "underlying",
  "engine",
  "raw_score",
  "percentile",
  "features_missing",
  "model_session",
  "training_rows",
  "reason",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/derived/anomaly_scores/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "calibrations" AS SELECT
  "horizon_sessions",
  "label",
  "is_calibrated",
  "knots",
  "labels",
  "positives",
  "base_rate",
  "shrinkage",
  "brier",
  "brier_base_rate",
  "first_signal_session",
  "last_signal_session",
  "reason",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/derived/calibrations/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "signals" AS SELECT
  "underlying",
  "score",
  "tier",
  "confidence",
  "confidence_reason",
  "regime",
  "direction",
  CAST("actionable_at_utc" AS TIMESTAMPTZ) AS "actionable_at_utc",
  "reasons",
  "history_sessions",
  "reason",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/derived/signals/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "signal_reasons" AS SELECT
  "underlying",
  "rank",
  "kind",
  "factor",
  "value",
  "baseline",
  "baseline_sessions",
  "z",
  "contribution",
  "sentence",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/derived/signal_reasons/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "outcomes" AS SELECT
  "signal_session",
  "underlying",
  "horizon_sessions",
  CAST("actionable_at_utc" AS TIMESTAMPTZ) AS "actionable_at_utc",
  CAST("entry_utc" AS TIMESTAMPTZ) AS "entry_utc",
  "entry_price",
  "entry_source",
  "exit_price",
  "exit_source",
  "forward_return",
  "from_close_return",
  "volatility",
  "volatility_source",
  "expected_move",
  "top_threshold",
  "top_threshold_labels",
  "is_significant_sigma",
  "is_significant_top",
  "reason",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/labels/outcomes/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "trials" AS SELECT
  "run_id",
  CAST("tested_at_utc" AS TIMESTAMPTZ) AS "tested_at_utc",
  "config_hash",
  "config",
  "vintage",
  "label",
  "horizon_sessions",
  "scorer",
  "first_session",
  "last_session",
  "sessions",
  "labels",
  "metrics",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc"
FROM read_parquet(['lake/ops/trials/run=*/part.parquet'], hive_partitioning = false) AS part;

CREATE OR REPLACE VIEW "reconciliation" AS SELECT
  "pair",
  "measure",
  "contract",
  "underlying",
  "left_value",
  "right_value",
  "residual",
  "reason",
  "contracts_compared",
  "contracts_equal",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/ops/reconciliation/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "activity" AS SELECT
  "source",
  "underlying",
  "rows",
  "distinct_rows",
  "volume",
  "minutes",
  "longest_silence_minutes",
  "silent_end_minutes",
  CAST("first_utc" AS TIMESTAMPTZ) AS "first_utc",
  CAST("last_utc" AS TIMESTAMPTZ) AS "last_utc",
  "content_hash",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/ops/activity/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "gaps" AS SELECT
  "dataset",
  "rule",
  "subject",
  "underlying",
  "rows",
  "measured",
  "expected",
  "what",
  "cure",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc",
  "session"
FROM read_parquet(['lake/ops/gaps/session=*/part.parquet'], hive_partitioning = true, hive_types = {'session': DATE}) AS part;

CREATE OR REPLACE VIEW "runs" AS SELECT
  "run_id",
  "step",
  "session",
  "status",
  "detail",
  CAST("started_at_utc" AS TIMESTAMPTZ) AS "started_at_utc",
  "seconds",
  "rows",
  "inputs_key",
  "command",
  "code",
  "libraries",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc"
FROM read_parquet(['lake/ops/runs/run=*/part.parquet'], hive_partitioning = false) AS part;

CREATE OR REPLACE VIEW "publications" AS SELECT
  "run_id",
  "dataset",
  "session",
  CAST("published_at_utc" AS TIMESTAMPTZ) AS "published_at_utc",
  "data_hash",
  "file_hash",
  "replaced_hash",
  "rows",
  "bytes",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc"
FROM read_parquet(['lake/ops/publications/run=*/part.parquet'], hive_partitioning = false) AS part;

CREATE OR REPLACE VIEW "audits" AS SELECT
  "run_id",
  "dataset",
  "session",
  CAST("audited_at_utc" AS TIMESTAMPTZ) AS "audited_at_utc",
  "passed",
  "checks",
  "failed_checks",
  "failures",
  "suite_hash",
  "rows",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc"
FROM read_parquet(['lake/ops/audits/run=*/part.parquet'], hive_partitioning = false) AS part;

CREATE OR REPLACE VIEW "findings" AS SELECT
  "run_id",
  "dataset",
  "session",
  CAST("found_at_utc" AS TIMESTAMPTZ) AS "found_at_utc",
  "rule",
  "kind",
  "severity",
  "rows",
  "what",
  "cure",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc"
FROM read_parquet(['lake/ops/findings/run=*/part.parquet'], hive_partitioning = false) AS part;

CREATE OR REPLACE VIEW "objects" AS SELECT
  "run_id",
  "key",
  "size",
  "etag",
  "sha256",
  CAST("fetched_at_utc" AS TIMESTAMPTZ) AS "fetched_at_utc",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc"
FROM read_parquet(['lake/ops/objects/run=*/part.parquet'], hive_partitioning = false) AS part;

CREATE OR REPLACE VIEW "quarantine" AS SELECT
  "dataset",
  "session",
  "inputs_key",
  "kind",
  "step",
  "rule",
  "what",
  "cure",
  "rows",
  CAST("quarantined_at_utc" AS TIMESTAMPTZ) AS "quarantined_at_utc",
  "run_id",
  "folder",
  CAST("known_at_utc" AS TIMESTAMPTZ) AS "known_at_utc"
FROM read_parquet(['lake/ops/quarantine/run=*/part.parquet'], hive_partitioning = false) AS part;
