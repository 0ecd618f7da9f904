// Charges records by one rate table: {table, records} on standard input, a list of {pico} or {code} on standard output.
import { readFileSync } from "node:fs";
import { charge, multiplier } from "./rating.mjs";

const { table, records } = JSON.parse(readFileSync(0, "utf8"));
const charges = records.map(({ further = [], ...record }) => charge(table, record, further.map(multiplier)));
process.stdout.write(JSON.stringify(charges, (_, value) => (typeof value === "bigint" ? String(value) : value)));
