// deno-lint-ignore-file
export function datagramSuite(..._: any[]): void {}
