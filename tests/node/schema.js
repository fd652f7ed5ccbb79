// Says of each line of JSON whether it fits the JSON Schema in the file that is named: true or false, a line each.
const fs = require("node:fs");
const Ajv = require("ajv/dist/2020");

const fits = new Ajv({ strict: true, allowUnionTypes: true }).compile(JSON.parse(fs.readFileSync(process.argv[2])));
for (const line of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) console.log(fits(JSON.parse(line)));
