/** First in, first out, without the cost of `Array.shift()`, which moves all the others. */
export class Queue<T> {
  #items: (T | undefined)[] = [];
  #taken = 0;

  get length(): number {
    return this.#items.length - this.#taken;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  first(): T | undefined {
    return this.#items[this.#taken];
  }

  shift(): T | undefined {
    const item = this.#items[this.#taken];
    if (item === undefined) return undefined;
    // What was taken is not to be kept by the place that it had.
    this.#items[this.#taken] = undefined;
    if (++this.#taken === this.#items.length) this.clear();
    else if (this.#taken >= 1024 && 2 * this.#taken > this.#items.length) {
      this.#items = this.#items.slice(this.#taken);
      this.#taken = 0;
    }
    return item;
  }

  /** Takes `item` out, wherever it is; false if it is not there. */
  remove(item: T): boolean {
    const at = this.#items.indexOf(item, this.#taken);
    if (at < 0) return false;
    // The most frequent one, and the only one that moves no others.
    if (at === this.#taken) return this.shift() !== undefined;
    this.#items.splice(at, 1);
    if (this.#taken === this.#items.length) this.clear();
    return true;
  }

  clear(): void {
    this.#items = [];
    this.#taken = 0;
  }

  *[Symbol.iterator](): Generator<T, void> {
    for (let i = this.#taken; i < this.#items.length; i++) yield this.#items[i]!;
  }
}
