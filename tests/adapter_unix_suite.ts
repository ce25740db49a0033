// deno-lint-ignore-file
export function unixSuite(..._: any[]): void {}
