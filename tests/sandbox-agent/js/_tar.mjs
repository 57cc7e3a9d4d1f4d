// The few lines of the tar format (ustar) that an upload of plain files needs.

function header(name, size) {
  const block = Buffer.alloc(512)
  const field = (value, at, length) => block.write(value, at, length, 'utf8')
  field(name, 0, 100)
  field('0000644\0', 100, 8)
  field('0000000\0', 108, 8)
  field('0000000\0', 116, 8)
  field(`${size.toString(8).padStart(11, '0')}\0`, 124, 12)
  field('00000000000\0', 136, 12)
  field('        ', 148, 8)
  field('0', 156, 1)
  field('ustar\x0000', 257, 8)
  const sum = block.reduce((total, byte) => total + byte, 0)
  field(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8)
  return block
}

/** An archive of `{ name: content }`. */
export function tar(files) {
  const parts = []
  for (const [name, content] of Object.entries(files)) {
    const bytes = Buffer.from(content)
    parts.push(header(name, bytes.length), bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512))
  }
  parts.push(Buffer.alloc(1024))
  return Buffer.concat(parts)
}
