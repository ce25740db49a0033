// deno-lint-ignore-file
export function tlsSuite(..._: any[]): void {}
