/* From the reset vector, in real mode, to C in 32-bit protected mode with flat segments. */
	.section .reset, "ax"
	.code16
	ljmp $0xF000, $start_offset

	.text
	.code16
	.globl start, table
start:
	cli
	lgdtl %cs:table_offset
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $8, $protected

	.code32
protected:
	movw $16, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $0x8000, %esp
	call run

	.align 8
segments:
	.quad 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF
table:
	.word table - segments - 1
	.long segments
